"""The command that makes a component: what it refuses, and in which words. Components themselves are run by the host's tests."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import modhost
from modhost._dev_build import LOOK, Look, put_behind, remember, without_sources
from modhost._module import EXPORT

GOOD = "import modhost\n@modhost.module\ndef answer(event: modhost.Event) -> None: ...\n"


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "modhost-componentize"
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache"), **variables}
    return subprocess.run([command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def refused(folder: Path, name: str, text: str | None) -> str:
    if text is not None:
        (folder / name).write_text(text)
    ended = run(folder, name)
    assert ended.returncode == 1
    assert not list(folder.glob("*.wasm"))
    assert not list(folder.glob(".componentize-*"))
    return ended.stderr


def test_what_can_be_no_module_is_refused_in_words(tmp_path: Path) -> None:
    for name, text, told in [
        ("missing.py", None, "there is no file missing.py"),
        ("my-answer.py", GOOD, "can't be imported: name it like a module"),
        ("json.py", GOOD, "hides a module of that name"),
        ("plain.py", "x = 1\n", "no function in plain.py has @modhost.module"),
        ("broken.py", "def answer(:\n", "SyntaxError"),
        ("lacking.py", f"import no_such_package\n{GOOD}", "No module named 'no_such_package'"),
        ("twice.py", GOOD + GOOD.partition("\n")[2], "a module has one"),
    ]:
        folder = tmp_path / Path(name).stem
        folder.mkdir()
        assert told in refused(folder, name, text), name


def test_an_import_that_fails_is_told_by_the_modules_own_frames(tmp_path: Path) -> None:
    (tmp_path / "prices.py").write_text("def first():\n    return {}['first']\nFIRST = first()\n")
    told = refused(tmp_path, "answer.py", f"try:\n    import prices\nexcept KeyError as error:\n    raise ValueError from error\n{GOOD}")
    assert 'answer.py", line 2, in <module>' in told and 'prices.py", line 2, in first' in told
    assert "KeyError: 'first'" in told and "ValueError" in told
    assert "importlib" not in told and "<string>" not in told
    assert "SystemExit" in refused(tmp_path, "ends.py", "import sys\nsys.exit(0)\n")


def test_a_component_is_made_and_asks_only_for_what_it_uses(tmp_path: Path) -> None:
    (tmp_path / "answer.py").write_text(GOOD)
    (tmp_path / "keeps.py").write_text("from modhost.keyvalue import Store\n" + GOOD)
    (tmp_path / "asks.py").write_text("from modhost import http\n" + GOOD)
    for name, keeps, asks in [("answer", False, False), ("keeps", True, False), ("asks", False, True)]:
        ended = run(tmp_path, f"{name}.py", "-o", f"{name}.wasm")
        assert ended.returncode == 0, ended.stderr
        assert re.fullmatch(rf"{name}\.wasm: [0-9.]+ MiB\n", ended.stdout)
        component = (tmp_path / f"{name}.wasm").read_bytes()
        assert component[:8] == b"\0asm\x0d\0\x01\0"
        assert (b"wasi:keyvalue/store@0.2.0-draft2" in component) == keeps
        assert (b"wasi:http/outgoing-handler@" in component) == asks


def test_the_smaller_world_is_the_world_without_what_is_kept() -> None:
    wit = Path(modhost.__file__).parent / "wit"

    def items(name: str) -> set[str]:
        text = re.sub(r"//.*", "", (wit / name).read_text())
        body = text[text.index("{") :].partition("\nworld ")[0]
        return {" ".join(item.split()) for item in re.split(r"[;}]", body.strip("{}\n ")) if item.strip()}

    left_out = {item for item in items("world.wit") if item.startswith("import wasi:keyvalue/")}
    assert len(left_out) == 3
    assert items("world.wit") - left_out == items("worlds.wit")


def look(folder: Path) -> Look:
    """What `answer.py` in a folder is made of."""
    ran = subprocess.run([sys.executable, "-P", "-c", LOOK, folder, "answer", EXPORT], capture_output=True, text=True, check=True)
    return Look(**json.loads(ran.stdout.splitlines()[-1]))


def test_sources_are_put_behind_a_component_that_was_made_of_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = Path(modhost.__file__).parent
    base = b"\0asm\x0d\0\x01\0" + b"\x01\x02ab" + b"\0\x05\x04name"
    component, source, output = tmp_path / "answer.wasm", tmp_path / "answer.py", tmp_path / "out.wasm"
    source.write_text(f"import decimal\nfrom json import decoder\nimport helper\n{GOOD}")
    (tmp_path / "helper.py").write_text("TEXT = 'ä'\n")
    assert put_behind(component, source, look(tmp_path), package, output) == "there is no component yet"
    component.write_bytes(base)
    assert put_behind(component, source, look(tmp_path), package, output) == "it isn't known what the component was made of"
    remember(component, look(tmp_path), package)

    for text, why in [
        (f"import decimal\nimport helper\nX = helper.TEXT\n{GOOD}", None),
        (f"from json import decoder\n{GOOD}", None),
        (f"import colorsys\n{GOOD}", "it imports colorsys now"),
        (f"def late():\n    from json import encoder\n{GOOD}", "it imports json.encoder now"),
        (f"import helper\nwith open('data.txt') as file: pass\n{GOOD}", "it reads data.txt while it is loaded"),
        (f"from modhost import keyvalue\n{GOOD}", "it imports modhost.keyvalue now"),
        (f"import helper\n{GOOD}", None),
    ]:
        (tmp_path / "data.txt").write_text("data")
        source.write_text(text)
        monkeypatch.chdir(tmp_path)
        assert put_behind(component, source, look(tmp_path), package, output) == why, text
        if why is None:
            # The next ones go behind the component, not behind what is behind it.
            component.write_bytes(output.read_bytes())
            sources = json.loads(component.read_bytes().partition(b"modhost:sources")[2])
            assert sources["module"] == "answer" and sources["files"]["answer"]["text"] == text
            assert ("helper" in sources["files"]) == ("helper" in text)
        assert without_sources(component.read_bytes()) == base
