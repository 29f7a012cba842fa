"""Result folders that several tests look at, and a browser to look with."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.results import answers, caption, classes, clip

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of every task, made once and not to be changed."""
    folder = tmp_path_factory.mktemp("results")
    for name, make in {"a": classes, "b": caption, "c": answers, "deep/d": clip}.items():
        make().save(folder / name)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install 'mmcam[test]'")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on the PATH; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """`opened(file)`: a page that is watched; at the end it must have kept quiet and to itself."""
    told: list[str] = []
    with contextlib.ExitStack() as cleanup:

        def open_page(
            file: Path,
            size: tuple[int, int] = (1280, 860),
            scheme: str = "light",
            missing: str = "",
        ) -> Any:
            context = browser.new_context(
                viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, offline=True
            )
            cleanup.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(10_000)
            folder = file.parent.as_uri()

            def left(request: Any) -> None:
                inside = request.url.startswith((folder, "data:"))
                if not inside:
                    told.append(f"request: {request.url}")

            def said(message: Any) -> None:
                if message.type == "error" and not (missing and missing in str(message.location)):
                    told.append(f"console: {message.text}")

            page.on("request", left)
            page.on("console", said)
            page.on("pageerror", lambda error: told.append(f"error: {error}"))
            page.goto(file.as_uri())
            return page

        yield open_page
    assert told == []
