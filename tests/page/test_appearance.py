"""The appearance of pages: no violation that axe finds, nothing cut off, light and dark."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmcam.page import gallery, write_page
from tests.page.looking import alphas, expected, until
from tests.page.results import clip, make_explanations, pixels

pytestmark = pytest.mark.browser

SMALL, PHONE, LAPTOP, WIDE = (320, 640), (390, 844), (1280, 860), (2200, 1200)


def every_page(results: Path) -> dict[str, Path]:
    pages = {name: results / name / "index.html" for name in ("a", "b", "c", "deep/d")}
    pages["gallery"] = results / "gallery.html"
    if not pages["gallery"].exists():
        write_page(pages["gallery"], gallery([results], pages["gallery"]))
    return pages


def test_a_clip_plays_in_a_gallery_too(results: Path, opened: Any) -> None:
    page = opened(every_page(results)["gallery"])
    page.locator(".cards button", has_text="red moves").click()
    until(page, "!document.querySelector('dialog video').hidden")
    page.get_by_label("Frame", exact=True).fill("5")
    drawn = alphas(page, "dialog .stage.large canvas")
    assert np.abs(drawn - expected(clip()[0], drawn.shape, 5)).max() <= 2
    page.keyboard.press("Escape")
    assert page.locator("video").count() == 0


VIEWS = {
    "a": ["All methods"],
    "b": ["Side by side", "Pin"],
    "c": ["Difference"],
    "deep/d": ["Side by side"],
    "gallery": [],
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", VIEWS)
def test_axe_finds_no_fault(results: Path, opened: Any, name: str, scheme: str) -> None:
    if importlib.util.find_spec("axe_playwright_python") is None:
        pytest.skip("axe-playwright-python is not installed: pip install 'mmcam[test]'")
    from axe_playwright_python.sync_playwright import Axe

    page = opened(every_page(results)[name], scheme=scheme)
    if name == "gallery":
        page.locator(".cards .stage").first.wait_for()
    else:
        page.locator("summary").click()
    states = ["", *VIEWS[name]]
    if name == "gallery":
        states = ["", "open"]
    for state in states:
        if state == "open":
            page.locator(".cards button").first.click()
        elif state == "Pin":
            page.get_by_text("One map").click()
            page.get_by_role("button", name="Pin this map").click()
        elif state:
            page.get_by_text(state, exact=True).click()
        violations = Axe().run(page).response["violations"]
        faults = [
            (rule["id"], [node["html"][:120] for node in rule["nodes"]]) for rule in violations
        ]
        assert faults == [], json.dumps(faults, indent=1)


@pytest.mark.parametrize("size", [SMALL, PHONE, LAPTOP, WIDE])
def test_nothing_is_cut_off_at_any_width(
    results: Path, opened: Any, size: tuple[int, int], tmp_path: Path
) -> None:
    long = make_explanations(["x" * 90, "dog"], pixels(300, 100), file=f"{'y' * 120}.jpg")
    long.save(tmp_path)
    for file in [*every_page(results).values(), tmp_path / "index.html"]:
        page = opened(file, size=size)
        page.locator(".stage").first.wait_for()
        full, visible = page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert full <= visible, file


@pytest.mark.parametrize("size", [PHONE, LAPTOP])
def test_light_and_dark_look_as_they_should(
    results: Path, opened: Any, size: tuple[int, int]
) -> None:
    for name, file in every_page(results).items():
        shots = {}
        for scheme in ("light", "dark"):
            page = opened(file, size=size, scheme=scheme)
            page.locator(".stage").first.wait_for()
            shot = Image.open(io.BytesIO(page.screenshot())).convert("L")
            shots[scheme] = np.asarray(shot, np.float64)
        light, dark = shots["light"], shots["dark"]
        assert light[:, :8].min() > 240, name
        assert dark[:, :8].max() < 40, name
        assert light.shape == dark.shape
        assert light.std() > 10
        assert dark.std() > 10
