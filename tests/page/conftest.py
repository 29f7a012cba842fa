"""Result folders shared by several tests, and a browser to open their pages."""

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
    """A folder with a result of every task, written once; tests must not change it."""
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
    """`opened(file)` opens a page; it must log no error and request nothing outside its folder."""
    problems: list[str] = []
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

            def on_request(request: Any) -> None:
                inside = request.url.startswith((folder, "data:"))
                if not inside:
                    problems.append(f"request: {request.url}")

            def on_console(message: Any) -> None:
                if message.type == "error" and not (missing and missing in str(message.location)):
                    problems.append(f"console: {message.text}")

            page.on("request", on_request)
            page.on("console", on_console)
            page.on("pageerror", lambda error: problems.append(f"error: {error}"))
            page.goto(file.as_uri())
            return page

        yield open_page
    assert problems == []
