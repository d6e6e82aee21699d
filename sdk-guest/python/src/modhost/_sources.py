"""A module's sources as they are now, in a component that was made of earlier ones: ``modhost dev`` puts them behind it, so that
whoever saves waits for no component to be made. They take the place of the earlier ones when the component starts."""

import importlib
import json
import linecache
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_looked = False


def renewed(root: str, export: str) -> Any:
    """What the host calls of the module as it is now, or ``None`` where the component has no other sources with it.

    ``root`` is the folder of the module's own files, as they are called in the component.
    """
    global _looked
    if _looked or sys.platform != "wasi":
        return None
    _looked = True
    text = sys.stdin.buffer.read() if sys.stdin else b""
    if not text:
        return None
    sources = json.loads(text)
    for name in [name for name, module in sys.modules.items() if _is_below(root, module)]:
        del sys.modules[name]
    finder = Finder(root, sources["files"])
    sys.meta_path.insert(0, finder)
    try:
        return getattr(importlib.import_module(sources["module"]), export)
    finally:
        # As in any component: what wasn't imported when it was loaded isn't there later.
        sys.meta_path.remove(finder)


def is_renewing() -> bool:
    """Whether the sources that are being loaded are those behind the component."""
    return any(isinstance(finder, Finder) for finder in sys.meta_path)


def _is_below(root: str, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    return isinstance(file, str) and file.startswith(f"{root}/")


class Finder:
    """Finds modules among the sources, and loads them."""

    def __init__(self, root: str, files: Mapping[str, Mapping[str, Any]]) -> None:
        self._root = root
        self._files = files

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self._files:
            return None
        spec = ModuleSpec(name, self, origin=self._place(name), is_package=self._files[name]["package"])  # type: ignore[arg-type]
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        text, place = self._files[module.__name__]["text"], self._place(module.__name__)
        # Without a time, nobody looks whether the file is there.
        linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
        exec(compile(text, place, "exec", dont_inherit=True), module.__dict__)

    def _place(self, name: str) -> str:
        return f"{self._root}/{self._files[name]['path']}"
