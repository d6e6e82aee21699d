"""The build command and its error messages. The host's tests run the components."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import modhost
from modhost._dev_build import INSPECT_SCRIPT, ModuleInfo, append_sources, record_build, strip_sources
from modhost._module import EXPORT

GOOD = "import modhost\n@modhost.module\ndef answer(event: modhost.Event) -> None: ...\n"


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "modhost-componentize"
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache"), **variables}
    return subprocess.run([command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def build_error(folder: Path, name: str, text: str | None) -> str:
    if text is not None:
        (folder / name).write_text(text)
    result = run(folder, name)
    assert result.returncode == 1
    assert not list(folder.glob("*.wasm"))
    assert not list(folder.glob(".componentize-*"))
    return result.stderr


def test_reports_files_that_are_not_modules(tmp_path: Path) -> None:
    for name, text, message in [
        ("missing.py", None, "no such file: missing.py"),
        ("my-answer.py", GOOD, "is not a valid Python module name"),
        ("json.py", GOOD, "hides a standard module of the same name"),
        ("plain.py", "x = 1\n", "no function in plain.py has the decorator @modhost.module"),
        ("broken.py", "def answer(:\n", "SyntaxError"),
        ("lacking.py", f"import no_such_package\n{GOOD}", "No module named 'no_such_package'"),
        ("twice.py", GOOD + GOOD.partition("\n")[2], "a module has one"),
    ]:
        folder = tmp_path / Path(name).stem
        folder.mkdir()
        assert message in build_error(folder, name, text), name


def test_failed_import_shows_only_the_modules_own_frames(tmp_path: Path) -> None:
    (tmp_path / "prices.py").write_text("def first():\n    return {}['first']\nFIRST = first()\n")
    output = build_error(tmp_path, "answer.py", f"try:\n    import prices\nexcept KeyError as error:\n    raise ValueError from error\n{GOOD}")
    assert 'answer.py", line 2, in <module>' in output and 'prices.py", line 2, in first' in output
    assert "KeyError: 'first'" in output and "ValueError" in output
    assert "importlib" not in output and "<string>" not in output
    assert "SystemExit" in build_error(tmp_path, "ends.py", "import sys\nsys.exit(0)\n")


def test_component_imports_only_the_interfaces_it_uses(tmp_path: Path) -> None:
    (tmp_path / "answer.py").write_text(GOOD)
    (tmp_path / "keeps.py").write_text("from modhost.keyvalue import Store\n" + GOOD)
    (tmp_path / "asks.py").write_text("from modhost import http\n" + GOOD)
    for name, keeps, asks in [("answer", False, False), ("keeps", True, False), ("asks", False, True)]:
        result = run(tmp_path, f"{name}.py", "-o", f"{name}.wasm")
        assert result.returncode == 0, result.stderr
        assert re.fullmatch(rf"{name}\.wasm: [0-9.]+ MiB\n", result.stdout)
        component = (tmp_path / f"{name}.wasm").read_bytes()
        assert component[:8] == b"\0asm\x0d\0\x01\0"
        assert (b"wasi:keyvalue/store@0.2.0-draft2" in component) == keeps
        assert (b"wasi:http/outgoing-handler@" in component) == asks


def test_smaller_world_is_the_world_without_keyvalue() -> None:
    wit = Path(modhost.__file__).parent / "wit"

    def items(name: str) -> set[str]:
        text = re.sub(r"//.*", "", (wit / name).read_text())
        body = text[text.index("{") :].partition("\nworld ")[0]
        return {" ".join(item.split()) for item in re.split(r"[;}]", body.strip("{}\n ")) if item.strip()}

    omitted = {item for item in items("world.wit") if item.startswith("import wasi:keyvalue/")}
    assert len(omitted) == 3
    assert items("world.wit") - omitted == items("worlds.wit")


def inspect(folder: Path) -> ModuleInfo:
    """Inspects `answer.py` in a folder."""
    ran = subprocess.run([sys.executable, "-P", "-c", INSPECT_SCRIPT, folder, "answer", EXPORT], capture_output=True, text=True, check=True)
    return ModuleInfo(**json.loads(ran.stdout.splitlines()[-1]))


def test_appends_sources_only_if_the_result_equals_a_full_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = Path(modhost.__file__).parent
    base = b"\0asm\x0d\0\x01\0" + b"\x01\x02ab" + b"\0\x05\x04name"
    component, source, output = tmp_path / "answer.wasm", tmp_path / "answer.py", tmp_path / "out.wasm"
    source.write_text(f"import decimal\nfrom json import decoder\nimport helper\n{GOOD}")
    (tmp_path / "helper.py").write_text("TEXT = 'ä'\n")
    assert append_sources(component, source, inspect(tmp_path), package, output) == "there is no component yet"
    component.write_bytes(base)
    assert append_sources(component, source, inspect(tmp_path), package, output) == "there is no record of the last build"
    record_build(component, inspect(tmp_path), package)

    for text, reason in [
        (f"import decimal\nimport helper\nX = helper.TEXT\n{GOOD}", None),
        (f"from json import decoder\n{GOOD}", None),
        (f"import colorsys\n{GOOD}", "it now imports colorsys"),
        (f"def late():\n    from json import encoder\n{GOOD}", "it now imports json.encoder"),
        (f"import helper\nwith open('data.txt') as file: pass\n{GOOD}", "it reads data.txt during its import"),
        (f"from modhost import keyvalue\n{GOOD}", "it now imports modhost.keyvalue"),
        (f"import helper\n{GOOD}", None),
    ]:
        (tmp_path / "data.txt").write_text("data")
        source.write_text(text)
        monkeypatch.chdir(tmp_path)
        assert append_sources(component, source, inspect(tmp_path), package, output) == reason, text
        if reason is None:
            # The next sources replace these.
            component.write_bytes(output.read_bytes())
            sources = json.loads(component.read_bytes().partition(b"modhost:sources")[2])
            assert sources["module"] == "answer" and sources["files"]["answer"]["text"] == text
            assert ("helper" in sources["files"]) == ("helper" in text)
        assert strip_sources(component.read_bytes()) == base
