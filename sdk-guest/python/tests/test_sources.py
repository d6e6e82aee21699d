"""Sources that are appended to a component built from earlier ones."""

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
def reset_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_sources, "_checked", False)
    before = dict(sys.modules)
    yield
    for name in [name for name in sys.modules if name not in before]:
        del sys.modules[name]


def load(root: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Imports the module as it was when the component was built."""
    (root / "answering.py").write_text(ANSWER.format("'earlier ' + helping.TEXT"))
    (root / "helping.py").write_text("TEXT = 'help'\n")
    monkeypatch.syspath_prepend(str(root))
    import answering  # type: ignore[import-not-found]

    monkeypatch.setattr(sys, "platform", "wasi")
    for file in root.glob("*.py"):
        file.unlink()
    assert isinstance(answering, types.ModuleType)
    return answering


def append(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Appends sources to the component."""
    described = {name: {"path": f"{name}.py", "package": False, "text": text} for name, text in files.items()}
    content = json.dumps({"module": "answering", "files": described}).encode() if files else b""
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(content)))


def reason(module: types.ModuleType) -> str:
    with pytest.raises(Err) as raised:
        getattr(module, EXPORT)().handle(chosen())
    return str(raised.value.value.reason)


def test_appended_sources_replace_the_original_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(tmp_path, monkeypatch)
    append({"answering": ANSWER.format("'later ' + helping.TEXT"), "helping": "TEXT = 'hand'\n"}, monkeypatch)
    assert reason(module) == "later hand"


def test_runs_the_original_sources_if_none_are_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(tmp_path, monkeypatch)
    append({}, monkeypatch)
    assert reason(module) == "earlier help"


def test_traceback_shows_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(tmp_path, monkeypatch)
    append({"answering": ANSWER.format("helping.text()"), "helping": "\ndef text():\n    return [][1]\n"}, monkeypatch)
    text = reason(module)
    assert text.startswith("IndexError: list index out of range (helping.py, line 3, in text)"), text
    assert 'File "answering.py", line 5, in answer' in text and "return [][1]" in text, text
    linecache.checkcache()


def test_late_import_finds_only_loaded_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(tmp_path, monkeypatch)
    late = ANSWER.replace("import helping\n", "").format("str(__import__('later'))")
    append({"answering": late, "helping": ""}, monkeypatch)
    assert "No module named 'later'" in reason(module)


def test_reports_an_error_during_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(tmp_path, monkeypatch)
    append({"answering": "import helping\n" + ANSWER, "helping": "1 / 0\n"}, monkeypatch)
    assert reason(module).startswith("ZeroDivisionError: division by zero (helping.py, line 1, in <module>)")
