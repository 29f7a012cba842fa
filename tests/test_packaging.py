"""What is installed: every package, every file beside the code, nothing through links.

`adapters/` and `data/` lie at the top and are installed inside the package. The two links in
`mmcam/` are for editors and type checkers; where links are text files, as in a checkout on Windows,
everything still works.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
LINKS = {"adapters", "data"}


def folder_of(package: str) -> Path:
    """Where the files of a package lie in the repository."""
    parts = package.split(".")
    return ROOT.joinpath(*(parts[1:] if len(parts) > 1 and parts[1] in LINKS else parts))


def files_in(folder: Path) -> list[Path]:
    return [
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]


def test_every_package_is_installed() -> None:
    folders = {
        path.parent for top in ("mmcam", "adapters", "data") for path in files_in(ROOT / top)
    }
    with_code = {folder for folder in folders if (folder / "__init__.py").is_file()}
    own = {folder for folder in with_code if not LINKS & set(folder.relative_to(ROOT).parts[1:])}
    assert {folder_of(package) for package in SETUPTOOLS["packages"]} == own


def test_every_file_beside_the_code_is_installed() -> None:
    patterns = SETUPTOOLS["package-data"]
    for package in SETUPTOOLS["packages"]:
        for path in files_in(folder_of(package)):
            name = path.relative_to(folder_of(package)).as_posix()
            inside = any(
                path.is_relative_to(folder_of(other)) and len(other) > len(package)
                for other in SETUPTOOLS["packages"]
            )
            through_link = name.split("/")[0] in LINKS and package == "mmcam"
            if path.suffix == ".py" or inside or through_link:
                continue
            assert any(fnmatch(name, pattern) for pattern in patterns.get(package, ())), path


def test_the_commands_are_there() -> None:
    for target in PROJECT["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def run(code: str) -> str:
    """What a program prints in a new process, which must not fail."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("command", [["--help"], ["list", "methods"], ["caption", "--help"]])
def test_the_command_line_answers_without_torch(command: list[str]) -> None:
    printed = run(
        f"""
        import sys
        sys.argv = ["mmcam", *{command!r}]
        from mmcam.cli import main
        try:
            main()
        except SystemExit as end:
            assert end.code == 0, end.code
        heavy = {{"torch", "transformers", "torchvision", "numpy"}} & set(sys.modules)
        print("imported:", sorted(heavy))
        """
    )
    assert printed.rstrip().endswith("imported: []")


def test_every_public_name_is_there() -> None:
    run(
        """
        import mmcam
        for name in [*mmcam.__all__, "__version__"]:
            assert getattr(mmcam, name) is not None
            assert name in dir(mmcam)
        try:
            mmcam.explian
        except AttributeError as error:
            assert "explian" in str(error)
        else:
            raise AssertionError
        """
    )


def test_the_package_needs_no_fcntl() -> None:
    """Windows has none: every module of the package is imported without it."""
    run(
        """
        import importlib, pkgutil, sys
        sys.modules["fcntl"] = None
        for name in ("filelock", "torch", "pyarrow.parquet"):  # these have ways of their own
            del sys.modules["fcntl"]
            importlib.import_module(name)
            sys.modules["fcntl"] = None
        import mmcam
        for module in pkgutil.walk_packages(mmcam.__path__, "mmcam."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        """
    )
