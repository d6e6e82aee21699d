"""Loads sources that ``modhost dev`` appended to a component. They replace the sources from which the component was built, so
that a saved change needs no full build."""

import importlib
import json
import linecache
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_checked = False


def load_appended(root: str, export: str) -> Any:
    """Imports the appended sources and returns their export, or ``None`` if the component has no appended sources.

    ``root`` is the folder of the module's own files, as it is named in the component.
    """
    global _checked
    if _checked or sys.platform != "wasi":
        return None
    _checked = True
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
        # As in any component, modules that weren't imported while it was loaded are unavailable later.
        sys.meta_path.remove(finder)


def is_loading() -> bool:
    """Returns whether appended sources are being imported."""
    return any(isinstance(finder, Finder) for finder in sys.meta_path)


def _is_below(root: str, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    return isinstance(file, str) and file.startswith(f"{root}/")


class Finder:
    """An importer for the appended sources."""

    def __init__(self, root: str, files: Mapping[str, Mapping[str, Any]]) -> None:
        self._root = root
        self._files = files

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self._files:
            return None
        spec = ModuleSpec(name, self, origin=self._location(name), is_package=self._files[name]["package"])  # type: ignore[arg-type]
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        text, location = self._files[module.__name__]["text"], self._location(module.__name__)
        # Without a modification time, linecache doesn't check whether the file exists.
        linecache.cache[location] = (len(text), None, text.splitlines(keepends=True), location)
        exec(compile(text, location, "exec", dont_inherit=True), module.__dict__)

    def _location(self, name: str) -> str:
        return f"{self._root}/{self._files[name]['path']}"
