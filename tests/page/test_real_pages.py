"""Pages of real models and real files, opened in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmcam
from tests.page.looking import alphas, until

pytestmark = [pytest.mark.browser, pytest.mark.assets]


def test_a_photos_caption(assets: Path, opened: Any, tmp_path: Path) -> None:
    model = mmcam.load(str(assets / "image" / "show_and_tell_flickr8k"))
    mmcam.explain(model, assets / "image/photos/cat_dog.jpg", mmcam.Caption()).save(tmp_path)
    assert (tmp_path / "index.html").stat().st_size < 500_000
    page = opened(tmp_path / "index.html")
    whole = alphas(page)
    page.locator(".word", has_text="dog").hover()
    assert np.abs(alphas(page) - whole).max() > 5


def test_a_question(assets: Path, opened: Any, tmp_path: Path) -> None:
    model = mmcam.load(str(assets / "image" / "vqa_flickr8k"))
    task = mmcam.Answers("What color is the dog?", ["brown", "white"])
    mmcam.explain(model, assets / "image/photos/cat_dog.jpg", task).save(tmp_path)
    page = opened(tmp_path / "index.html")
    brown = alphas(page)
    page.get_by_role("tab", name="white").click()
    assert np.abs(alphas(page) - brown).max() > 5
    assert page.locator("h1 .shaded").count() == 6


def test_a_clip(assets: Path, opened: Any, tmp_path: Path) -> None:
    model = mmcam.load(str(assets / "video" / "x3d_xs_kinetics400"))
    source = assets / "video" / "clips" / "mmaction_cleaning_pool_32f.mp4"
    mmcam.explain(model, source, mmcam.Actions(top=1)).save(tmp_path)
    page = opened(tmp_path / "index.html")
    until(page, "!document.querySelector('video').hidden")
    page.get_by_label("Frame", exact=True).fill("0")
    page.get_by_role("button", name="Play").click()
    until(page, "Number(document.querySelector('.transport input').value) > 4")
    assert page.locator(".stage.large .unseen").is_visible()  # the margins of its centre crop
