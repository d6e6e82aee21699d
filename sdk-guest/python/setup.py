"""Puts into the package what isn't in version control: the contract, and the bindings made from it."""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
BINDINGS = "modhost._bindings"


def contract() -> Path:
    """The WIT package: in a source archive beside this file, in the repository at its top."""
    for folder in (HERE / "wit", HERE.parent.parent / "wit"):
        if (folder / "world.wit").is_file():
            return folder
    sys.exit(f"the contract is missing: neither {HERE / 'wit'} nor {HERE.parent.parent / 'wit'} has world.wit")


class BuildWithContract(build_py):
    """Copies the contract and makes the bindings; the bindings are for people, editors and type checkers, since
    componentize-py makes its own when it makes a component."""

    def run(self) -> None:
        super().run()
        package = Path(self.build_lib) / "modhost"
        wit = package / "wit"
        # An earlier build may have left what has another name by now.
        shutil.rmtree(wit, ignore_errors=True)
        shutil.copytree(contract(), wit)
        (package / "worlds.wit").replace(wit / "worlds.wit")
        names = tomllib.loads((package / "componentize-py.toml").read_text())["import_interface_names"]
        command = [sys.executable, "-c", "import componentize_py; componentize_py.script()"]
        command += ["--wit-path", str(wit), "--world", "module-with-http", "--world-module", BINDINGS]
        for interface, name in names.items():
            command += ["--import-interface-name", f"{interface}={name}"]
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder)
            subprocess.run([*command, "bindings", folder], check=True)
            shutil.copytree(made / BINDINGS.replace(".", "/"), package / "_bindings", dirs_exist_ok=True)
            # What the bindings import beside themselves.
            shutil.copy(made / "componentize_py_types.py", self.build_lib)


class SourceWithContract(sdist):
    """Takes the contract along."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        shutil.copytree(contract(), Path(base_dir) / "wit", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithContract, "sdist": SourceWithContract})
