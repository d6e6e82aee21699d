"""The command that makes a component: what it refuses, and in which words. Components themselves are run by the host's tests."""

import re
import subprocess
import sys
from pathlib import Path

import modhost

GOOD = "import modhost\n@modhost.module\ndef answer(event: modhost.Event) -> None: ...\n"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "modhost-componentize"
    return subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True, check=False)


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
