"""What ``modhost dev`` asks for when a file is saved: the module's sources behind the component that was made of earlier ones.
Making a component takes ten seconds, and so does compiling it in the host; this takes neither."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# What the host calls the section of the file with the sources (host/src/engine/sources.rs).
_SECTION = b"modhost:sources"

# How many components are remembered.
_REMEMBERED = 200

# Run by itself, so that the module's own code never meets this program's: imports the module, and says on its last line what it
# is made of. A module that can't be imported is told with its own frames: those of the import system and of these lines say
# nothing about it.
LOOK = r"""
import ast, importlib, json, os, sys, traceback
def told(error):
    whole = traceback.TracebackException.from_exception(error)
    left, known = [whole], set()
    while left:
        one = left.pop()
        if one is None or id(one) in known:
            continue
        known.add(id(one))
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(("<string>", "<frozen importlib"))
                        and frame.filename != importlib.__file__]
        left += [one.__cause__, one.__context__, *(one.exceptions or [])]
    return "".join(whole.format())
root, name, export = sys.argv[1:]
opened = set()
sys.addaudithook(lambda event, args: event == "open" and isinstance(args[0], str) and opened.add(os.path.abspath(args[0])))
before = set(sys.modules)
sys.path.insert(0, root)
try:
    app = importlib.import_module(name)
except BaseException as error:
    sys.stderr.write(told(error))
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
class Look:
    """What a module is made of."""

    found: bool
    """Whether it has a function that answers."""
    uses: list[str]
    """What it imports of what has to be granted."""
    own: Mapping[str, Mapping[str, Any]]
    """Its own files, by the names of modules."""
    others: Mapping[str, str]
    """Modules of others that came with it, each with what tells it from another version."""
    named: list[str]
    """Those of them that its own files name."""
    data: list[str]
    """Files it read that are no code."""
    python: str
    """The version of Python that looked."""


def remember(component: Path, look: Look, package: Path) -> None:
    """Remembers what a component was made of, so that other sources of the same kind can be put behind it."""
    record = {**asdict(look), "own": sorted(look.own), "package": _stamp(package)}
    try:
        folder = _records()
        folder.mkdir(parents=True, exist_ok=True)
        for forgotten in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-_REMEMBERED]:
            forgotten.unlink()
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".new", delete=False, encoding="utf-8") as new:
            json.dump(record, new)
        os.replace(new.name, folder / f"{_hash(component.read_bytes())}.json")
    except OSError:
        # Where nothing can be kept, the component is made each time.
        pass


def put_behind(component: Path, source: Path, look: Look, package: Path, output: Path) -> str | None:
    """Writes the component with the sources behind it. Says why not where that would do something else than a component that is
    made of them."""
    if not component.is_file():
        return "there is no component yet"
    base = without_sources(component.read_bytes())
    try:
        record = json.loads((_records() / f"{_hash(base)}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it isn't known what the component was made of"
    if source.stem not in look.own:
        return f"{source.name} isn't among the module's own files"
    if look.data or record["data"]:
        return f"it reads {Path((look.data or record['data'])[0]).name} while it is loaded"
    new = [name for name in look.named if name not in record["named"]]
    new += [name for name in look.others if name not in record["others"]]
    if new:
        return f"it imports {new[0]} now"
    changed = [name for name, stamp in look.others.items() if record["others"][name] != stamp]
    if changed:
        return f"{changed[0]} has changed"
    if record["uses"] != look.uses or record["python"] != look.python or record["package"] != _stamp(package):
        return "it is made with other tools"
    sources = json.dumps({"module": source.stem, "files": look.own}, ensure_ascii=False).encode()
    output.write_bytes(base + _section(sources))
    return None


def without_sources(component: bytes) -> bytes:
    """A component without the sources that were put behind it."""
    at, last = 8, len(component)
    while at < len(component):
        last, number = at, component[at]
        length, at = _leb128(component, at + 1)
        start, at = at, at + length
    section = bytes([len(_SECTION)]) + _SECTION
    return component[:last] if last < len(component) and number == 0 and component.startswith(section, start) else component


def _section(content: bytes) -> bytes:
    """A custom section: its number, its length, its name with the length of that, and what it holds."""
    inside = bytes([len(_SECTION)]) + _SECTION + content
    length, rest = b"", len(inside)
    while True:
        length += bytes([rest & 0x7F | (0x80 if rest > 0x7F else 0)])
        rest >>= 7
        if not rest:
            return b"\0" + length + inside


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return number, at


def _records() -> Path:
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "modhost" / "python"


def _stamp(package: Path) -> str:
    """What tells this package from another version of it."""
    files = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".wit", ".toml"))
    return _hash(b"".join(str(path.relative_to(package)).encode() + path.read_bytes() for path in files))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
