"""The fast build of ``modhost dev``: appends the module's current sources to a component that was built from earlier ones.
Building a component takes ten seconds, and so does compiling it in the host. This build skips both."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# The name of the custom section with the sources. The host defines the same name.
_SECTION = b"modhost:sources"

# The maximum number of build records.
_MAX_RECORDS = 200

# Runs in a separate process, so that the module's code can't interfere with this program. It imports the module and prints its
# description on the last line. If the import fails, it prints the traceback without the frames of the import system and of this
# script.
INSPECT_SCRIPT = r"""
import ast, importlib, json, os, sys, traceback
def format_error(error):
    whole = traceback.TracebackException.from_exception(error)
    pending, seen = [whole], set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(("<string>", "<frozen importlib"))
                        and frame.filename != importlib.__file__]
        pending += [one.__cause__, one.__context__, *(one.exceptions or [])]
    return "".join(whole.format())
root, name, export = sys.argv[1:]
opened = set()
sys.addaudithook(lambda event, args: event == "open" and isinstance(args[0], str) and opened.add(os.path.abspath(args[0])))
before = set(sys.modules)
sys.path.insert(0, root)
try:
    app = importlib.import_module(name)
except BaseException as error:
    sys.stderr.write(format_error(error))
    sys.exit(1)
tools = tuple({os.path.join(folder, "") for folder in (sys.prefix, sys.base_prefix, *sys.path[1:]) if folder})
own, others, texts = {}, {}, {}
for found, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    place = file or next(iter(getattr(module, "__path__", ())), None)
    if found in before or found == "__main__":
        continue
    if isinstance(place, str) and place.startswith(root + os.sep) and not place.startswith(tools):
        text = open(file, encoding="utf-8").read() if file else ""
        path = os.path.relpath(place, root).replace(os.sep, "/") + ("" if file else "/__init__.py")
        own[found] = {"path": path, "package": hasattr(module, "__path__"), "text": text}
    elif found.partition(".")[0] in sys.stdlib_module_names or not isinstance(file, str):
        others[found] = ""
    else:
        others[found] = "%d %d" % (os.stat(file).st_size, os.stat(file).st_mtime_ns)
named = set()
for found, module in own.items():
    for node in ast.walk(ast.parse(module["text"])):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            named |= {node.module} | {node.module + "." + alias.name for alias in node.names}
named = sorted(name for name in named if name in sys.modules and name not in own)
code = (".py", ".pyc", ".pth", ".cfg", ".so", ".pyd", ".dylib")
data = sorted(file for file in opened if not file.endswith(code) and not file.startswith(tools) and os.path.isfile(file))
uses = [name for name in ("http", "keyvalue") if "modhost." + name in sys.modules]
print("\n" + json.dumps({"found": hasattr(app, export), "uses": uses, "own": own, "others": others, "named": named,
    "data": data, "python": sys.version}))
"""


@dataclass(frozen=True)
class ModuleInfo:
    """The files and imports of a module."""

    found: bool
    """Whether it has a function with ``@modhost.module``."""
    uses: list[str]
    """The imported modules of this package that the host has to grant."""
    own: Mapping[str, Mapping[str, Any]]
    """The module's own files, by module name."""
    others: Mapping[str, str]
    """Other imported modules, each with a stamp of its version."""
    named: list[str]
    """The other modules that the module's own files import by name."""
    data: list[str]
    """Data files that were read during the import."""
    python: str
    """The version of Python that inspected the module."""


def record_build(component: Path, info: ModuleInfo, package: Path) -> None:
    """Records what a component was built from, so that later sources can be appended to it."""
    record = {**asdict(info), "own": sorted(info.own), "package": _stamp(package)}
    try:
        folder = _records()
        folder.mkdir(parents=True, exist_ok=True)
        for oldest in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-_MAX_RECORDS]:
            oldest.unlink()
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".new", delete=False, encoding="utf-8") as new:
            json.dump(record, new)
        os.replace(new.name, folder / f"{_hash(component.read_bytes())}.json")
    except OSError:
        # Without a record, the next build is a full build.
        pass


def append_sources(component: Path, source: Path, info: ModuleInfo, package: Path, output: Path) -> str | None:
    """Writes the component with the current sources appended. If that would behave differently from a full build, writes nothing
    and returns the reason."""
    if not component.is_file():
        return "there is no component yet"
    base = strip_sources(component.read_bytes())
    try:
        record = json.loads((_records() / f"{_hash(base)}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "there is no record of the last build"
    if source.stem not in info.own:
        return f"{source.name} is not one of the module's own files"
    if info.data or record["data"]:
        return f"it reads {Path((info.data or record['data'])[0]).name} during its import"
    new = [name for name in info.named if name not in record["named"]]
    new += [name for name in info.others if name not in record["others"]]
    if new:
        return f"it now imports {new[0]}"
    changed = [name for name, stamp in info.others.items() if record["others"][name] != stamp]
    if changed:
        return f"{changed[0]} has changed"
    if record["uses"] != info.uses or record["python"] != info.python or record["package"] != _stamp(package):
        return "the tools have changed"
    sources = json.dumps({"module": source.stem, "files": info.own}, ensure_ascii=False).encode()
    output.write_bytes(base + _section(sources))
    return None


def strip_sources(component: bytes) -> bytes:
    """Returns the component without appended sources."""
    at, last = 8, len(component)
    while at < len(component):
        last, number = at, component[at]
        length, at = _leb128(component, at + 1)
        start, at = at, at + length
    section = bytes([len(_SECTION)]) + _SECTION
    return component[:last] if last < len(component) and number == 0 and component.startswith(section, start) else component


def _section(content: bytes) -> bytes:
    """Encodes a custom section: its id, its length, the length of its name, its name, and its content."""
    body = bytes([len(_SECTION)]) + _SECTION + content
    length, rest = b"", len(body)
    while True:
        length += bytes([rest & 0x7F | (0x80 if rest > 0x7F else 0)])
        rest >>= 7
        if not rest:
            return b"\0" + length + body


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return number, at


def _records() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "modhost" / "python"


def _stamp(package: Path) -> str:
    """Returns a hash of this package's files."""
    files = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".wit", ".toml"))
    return _hash(b"".join(str(path.relative_to(package)).encode() + path.read_bytes() for path in files))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
