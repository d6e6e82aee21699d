"""``modhost-componentize``: makes a component of a module."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from modhost._dev_build import LOOK, Look, put_behind, remember
from modhost._module import EXPORT

# What the contract and worlds.wit call the world of a module that imports these modules of the package. A host that doesn't
# grant what they need doesn't load a component that asks for it.
WORLDS = {
    (): "module-without-keyvalue",
    ("keyvalue",): "module",
    ("http",): "module-with-http-without-keyvalue",
    ("http", "keyvalue"): "module-with-http",
}


def main() -> None:
    """Reads the command line and does what it says."""
    parser = argparse.ArgumentParser(
        prog="modhost-componentize",
        description="Makes a component of a module: the file whose function has @modhost.module, and all it imports.",
    )
    parser.add_argument("module", type=Path, metavar="MODULE.py", help="the module")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the component; MODULE.wasm beside it if not said")
    arguments = parser.parse_args()
    source: Path = arguments.module
    output: Path = arguments.output or source.with_suffix(".wasm")
    try:
        componentize(source, output)
    except Refused as refusal:
        sys.exit(f"modhost-componentize: {refusal}")
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


class Refused(Exception):
    """Why no component was made, in words for the author."""


def componentize(source: Path, output: Path) -> None:
    """Makes the component of a module, or leaves what there was and says why."""
    if not source.is_file():
        raise Refused(f"there is no file {source}")
    if not source.stem.isidentifier() or source.suffix != ".py":
        raise Refused(f"{source.name} can't be imported: name it like a module of Python, say answer.py")
    if source.stem in sys.stdlib_module_names | {"modhost", "wit_world"}:
        raise Refused(f"{source.name} hides a module of that name that it needs itself: give it another name")
    look = _look(source)
    world = WORLDS[tuple(look.uses)]
    package = _package()
    # Written aside and moved: a host that watches the file sees it whole, or not at all.
    with tempfile.TemporaryDirectory(prefix=".componentize-", dir=output.parent) as aside:
        made = Path(aside) / output.name
        if os.environ.get("MODHOST_DEV_BUILD"):
            why = put_behind(output, source, look, package, made)
            if why is None:
                made.replace(output)
                return
            print(f"making the component anew: {why}", flush=True)
        command = [sys.executable, "-P", "-c", "import componentize_py; componentize_py.script()"]
        command += ["--quiet", "--world", world, "componentize", source.stem]
        command += ["--python-path", str(source.parent), "--python-path", str(package.parent), "--output", str(made)]
        # It would add whatever folder of packages this names, and takes the one given.
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        environment["RUST_BACKTRACE"] = "0"  # its own frames say nothing about the module
        run = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if run.returncode != 0 or not made.is_file():
            raise Refused(
                f"componentize-py made no component of {source.name}.\n\n{_cause(run.stderr)}\n\nOnly pure Python works, "
                "with what a component has: no threads, processes, sockets or compiled extensions."
            )
        remember(made, look, package)
        made.replace(output)


def _cause(said: str) -> str:
    """What componentize-py said, without how it got there."""
    said = said.rpartition("AssertionError: ")[2]
    return _own_frames(said.partition("\n\nCaused by:")[0]).strip()


def _own_frames(said: str) -> str:
    """A traceback without the frames of the import system, each a line that names it and the lines of code below."""
    kept: list[str] = []
    is_left_out = False
    for line in said.splitlines():
        if not (is_left_out and line.startswith("    ")):
            is_left_out = line.startswith('  File "<frozen importlib') or "/importlib/__init__.py" in line
            kept += [] if is_left_out else [line]
    return "\n".join(kept)


def _look(source: Path) -> Look:
    """Imports the module once on this machine, and says what it is made of. Its mistakes are told in a moment then,
    not after the compilation."""
    command = [sys.executable, "-P", "-c", LOOK, str(source.parent.resolve()), source.stem, EXPORT]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        raise Refused(f"{source.name} can't be imported; Python says why above")
    *printed, found = run.stdout.rstrip("\n").split("\n")
    sys.stdout.write("".join(f"{line}\n" for line in printed if line))
    look = Look(**json.loads(found))
    if not look.found:
        raise Refused(f"no function in {source.name} has @modhost.module above it: that is the one that answers events")
    return look


def _package() -> Path:
    """Where this package is, with the contract in it."""
    spec = importlib.util.find_spec("modhost")
    if spec is None or spec.origin is None:
        raise Refused("the package modhost isn't installed here")
    package = Path(spec.origin).parent
    if not (package / "wit" / "world.wit").is_file():
        raise Refused(f"{package} lacks the contract; install the package: pip install …/sdk-guest/python")
    return package
