"""What the README says is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmcam import METHODS
from mmcam.cli import app
from mmcam.models import FAMILIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_row(name: str) -> None:
    row = METHODS[name]
    assert f"| `{name}` | {row.summary} | {row.source} |" in README


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_its_row(name: str) -> None:
    row = FAMILIES[name]
    assert f"| `{name}` | `{row.example}` | {row.summary} |" in README


def test_its_pictures_and_files_are_there() -> None:
    pictures = re.findall(r"\]\(([^)]+)\)", README)
    assert pictures
    scripts = re.findall(r"python (examples/\S+\.py)", README)
    for path in [*pictures, *scripts]:
        assert (ROOT / path).is_file(), path


def test_its_python_is_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        ast.parse(block)


def test_its_options_exist() -> None:
    commands = [c for c in re.findall(r"^mmcam (.+)$", README, re.MULTILINE) if "|" not in c]
    assert len(commands) >= 5
    for command in commands:
        name = command.split()[0]
        words = command.split()[:2] if name == "list" else [name]
        known = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output
        for option in re.findall(r"--[a-z-]+", command):
            assert option in known, (command, option)
