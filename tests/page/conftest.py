"""Result folders that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.page.results import answers, caption, classes, clip


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of every task, made once and not to be changed."""
    folder = tmp_path_factory.mktemp("results")
    for name, make in {"a": classes, "b": caption, "c": answers, "deep/d": clip}.items():
        make().save(folder / name)
    return folder
