"""Adds the contract and the generated bindings to the package. Neither is in version control."""

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
    """Returns the folder of the WIT package: next to this file in a source archive, at the top level in the repository."""
    for folder in (HERE / "wit", HERE.parent.parent / "wit"):
        if (folder / "world.wit").is_file():
            return folder
    sys.exit(f"cannot find the contract: no world.wit in {HERE / 'wit'} or {HERE.parent.parent / 'wit'}")


class BuildWithContract(build_py):
    """Copies the contract and generates the bindings. The bindings are for people, editors and type checkers, because
    componentize-py generates its own when it builds a component."""

    def run(self) -> None:
        super().run()
        package = Path(self.build_lib) / "modhost"
        wit = package / "wit"
        # An earlier build may have left files that are renamed now.
        shutil.rmtree(wit, ignore_errors=True)
        shutil.copytree(contract(), wit)
        (package / "worlds.wit").replace(wit / "worlds.wit")
        names = tomllib.loads((package / "componentize-py.toml").read_text())["import_interface_names"]
        command = [sys.executable, "-c", "import componentize_py; componentize_py.script()"]
        command += ["--wit-path", str(wit), "--world", "module-with-http", "--world-module", BINDINGS]
        for interface, name in names.items():
            command += ["--import-interface-name", f"{interface}={name}"]
        with tempfile.TemporaryDirectory() as folder:
            generated = Path(folder)
            subprocess.run([*command, "bindings", folder], check=True)
            shutil.copytree(generated / BINDINGS.replace(".", "/"), package / "_bindings", dirs_exist_ok=True)
            # The bindings import this module.
            shutil.copy(generated / "componentize_py_types.py", self.build_lib)


class SourceWithContract(sdist):
    """Adds the contract to the source archive."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        shutil.copytree(contract(), Path(base_dir) / "wit", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithContract, "sdist": SourceWithContract})
