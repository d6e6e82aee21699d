"""A component that was made of earlier sources, with those of now behind it."""

import io
import json
import linecache
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import chosen

from componentize_py_types import Err
from modhost import _sources
from modhost._module import EXPORT

ANSWER = "import modhost\nimport helping\n@modhost.module\ndef answer(event: modhost.Event) -> None:\n    raise modhost.Failure({})\n"


@pytest.fixture(autouse=True)
def as_in_a_component(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_sources, "_looked", False)
    before = dict(sys.modules)
    yield
    for name in [name for name in sys.modules if name not in before]:
        del sys.modules[name]


def load(root: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module as it was when the component was made."""
    (root / "answering.py").write_text(ANSWER.format("'earlier ' + helping.TEXT"))
    (root / "helping.py").write_text("TEXT = 'help'\n")
    monkeypatch.syspath_prepend(str(root))
    import answering  # type: ignore[import-not-found]

    monkeypatch.setattr(sys, "platform", "wasi")
    for file in root.glob("*.py"):
        file.unlink()
    assert isinstance(answering, types.ModuleType)
    return answering


def behind(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts sources behind the component."""
    described = {name: {"path": f"{name}.py", "package": False, "text": text} for name, text in files.items()}
    content = json.dumps({"module": "answering", "files": described}).encode() if files else b""
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(content)))


def reason(module: types.ModuleType) -> str:
    with pytest.raises(Err) as raised:
        getattr(module, EXPORT)().handle(chosen())
    return str(raised.value.value.reason)


def test_what_is_behind_a_component_takes_the_place_of_what_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(tmp_path, monkeypatch)
    behind({"answering": ANSWER.format("'later ' + helping.TEXT"), "helping": "TEXT = 'hand'\n"}, monkeypatch)
    assert reason(module) == "later hand"


def test_without_sources_it_is_what_it_was_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(tmp_path, monkeypatch)
    behind({}, monkeypatch)
    assert reason(module) == "earlier help"


def test_a_traceback_names_file_and_line_and_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(tmp_path, monkeypatch)
    behind({"answering": ANSWER.format("helping.text()"), "helping": "\ndef text():\n    return [][1]\n"}, monkeypatch)
    told = reason(module)
    assert told.startswith("IndexError: list index out of range (helping.py, line 3, in text)"), told
    assert 'File "answering.py", line 5, in answer' in told and "return [][1]" in told, told
    linecache.checkcache()


def test_what_is_not_imported_when_it_is_loaded_is_not_there_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(tmp_path, monkeypatch)
    late = ANSWER.replace("import helping\n", "").format("str(__import__('later'))")
    behind({"answering": late, "helping": ""}, monkeypatch)
    assert "No module named 'later'" in reason(module)


def test_what_breaks_while_it_is_loaded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(tmp_path, monkeypatch)
    behind({"answering": "import helping\n" + ANSWER, "helping": "1 / 0\n"}, monkeypatch)
    assert reason(module).startswith("ZeroDivisionError: division by zero (helping.py, line 1, in <module>)")
