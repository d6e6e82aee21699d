"""The command ``modhost-componentize``, which builds the component of a module."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from modhost._dev_build import INSPECT_SCRIPT, ModuleInfo, append_sources, record_build
from modhost._module import EXPORT

# The world of a module (in the contract or in worlds.wit), by the modules of this package that it imports. A host doesn't load
# a component that imports an interface the host doesn't grant.
WORLDS = {
    (): "module-without-keyvalue",
    ("keyvalue",): "module",
    ("http",): "module-with-http-without-keyvalue",
    ("http", "keyvalue"): "module-with-http",
}


def main() -> None:
    """Parses the command line and builds the component."""
    parser = argparse.ArgumentParser(
        prog="modhost-componentize",
        description="Build the component of a module: the file with the @modhost.module function, and everything it imports.",
    )
    parser.add_argument("module", type=Path, metavar="MODULE.py", help="the module")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the component (default: MODULE.wasm next to the module)")
    arguments = parser.parse_args()
    source: Path = arguments.module
    output: Path = arguments.output or source.with_suffix(".wasm")
    try:
        componentize(source, output)
    except BuildError as error:
        sys.exit(f"modhost-componentize: {error}")
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


class BuildError(Exception):
    """The build failed. The message is for the module's author."""


def componentize(source: Path, output: Path) -> None:
    """Builds the component of a module. If the build fails, an existing component stays unchanged."""
    if not source.is_file():
        raise BuildError(f"no such file: {source}")
    if not source.stem.isidentifier() or source.suffix != ".py":
        raise BuildError(f"{source.name} is not a valid Python module name; use a name like answer.py")
    if source.stem in sys.stdlib_module_names | {"modhost", "wit_world"}:
        raise BuildError(f"{source.name} hides a standard module of the same name; rename the file")
    info = _inspect(source)
    world = WORLDS[tuple(info.uses)]
    package = _package()
    # Written to a temporary file and renamed, so that a host that watches the file never sees a partial one.
    with tempfile.TemporaryDirectory(prefix=".componentize-", dir=output.parent) as temporary:
        built = Path(temporary) / output.name
        if os.environ.get("MODHOST_DEV_BUILD"):
            reason = append_sources(output, source, info, package, built)
            if reason is None:
                built.replace(output)
                return
            print(f"rebuilding the component: {reason}", flush=True)
        command = [sys.executable, "-P", "-c", "import componentize_py; componentize_py.script()"]
        command += ["--quiet", "--world", world, "componentize", source.stem]
        command += ["--python-path", str(source.parent), "--python-path", str(package.parent), "--output", str(built)]
        # componentize-py would also add the packages of this environment.
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        environment["RUST_BACKTRACE"] = "0"  # its own frames don't help the module's author
        run = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if run.returncode != 0 or not built.is_file():
            raise BuildError(
                f"componentize-py failed to build {source.name}.\n\n{_cause(run.stderr)}\n\nOnly pure Python works in a component: "
                "no threads, processes, sockets or compiled extensions."
            )
        record_build(built, info, package)
        built.replace(output)


def _cause(output: str) -> str:
    """Returns the error in the output of componentize-py, without its own backtrace."""
    output = output.rpartition("AssertionError: ")[2]
    return _without_import_frames(output.partition("\n\nCaused by:")[0]).strip()


def _without_import_frames(traceback: str) -> str:
    """Removes the frames of the import system from a traceback."""
    kept: list[str] = []
    is_import_frame = False
    for line in traceback.splitlines():
        if not (is_import_frame and line.startswith("    ")):
            is_import_frame = line.startswith('  File "<frozen importlib') or "/importlib/__init__.py" in line
            kept += [] if is_import_frame else [line]
    return "\n".join(kept)


def _inspect(source: Path) -> ModuleInfo:
    """Imports the module once on this machine and returns what it consists of. This reports mistakes immediately, before the
    slow build."""
    command = [sys.executable, "-P", "-c", INSPECT_SCRIPT, str(source.parent.resolve()), source.stem, EXPORT]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        raise BuildError(f"cannot import {source.name}; see the traceback above")
    *printed, result = run.stdout.rstrip("\n").split("\n")
    sys.stdout.write("".join(f"{line}\n" for line in printed if line))
    info = ModuleInfo(**json.loads(result))
    if not info.found:
        raise BuildError(
            f"no function in {source.name} has the decorator @modhost.module; add it to the function that handles events"
        )
    return info


def _package() -> Path:
    """Returns the folder of this package, which contains the contract."""
    spec = importlib.util.find_spec("modhost")
    if spec is None or spec.origin is None:
        raise BuildError("the package modhost is not installed in this environment")
    package = Path(spec.origin).parent
    if not (package / "wit" / "world.wit").is_file():
        raise BuildError(f"{package} does not contain the contract; install the package with pip install …/sdk-guest/python")
    return package
