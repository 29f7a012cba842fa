"""Helpers that read the state of an open page."""

from __future__ import annotations

import base64
import io
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmcam.grids import onto_original
from mmcam.results.explanation import Explanation


def until(page: Any, condition: str) -> None:
    """Wait for a condition. Playwright's own wait uses eval, which the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        time.sleep(0.05)
    pytest.fail(f"never came true: {condition}")


def alphas(page: Any, selector: str = ".stage.large canvas") -> np.ndarray:
    """The alpha of each pixel of a drawn map, in 0..255."""
    uri = page.eval_on_selector(selector, "canvas => canvas.toDataURL()")
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return np.asarray(image.convert("RGBA"), np.float64)[..., 3]


def expected(
    item: Explanation, size: tuple[int, ...], frame: int | None = None, opacity: float = 0.55
) -> np.ndarray:
    """The alphas by mmcam's own interpolation, for a map of this size."""
    box = (0.0, 0.0, float(size[1]), float(size[0]))
    placement = replace(item.placement, size=(size[0], size[1]), box=box)
    frames = None if frame is None else [frame]
    scaled = item.saliency.clamp(min=0) / (item.maximum or 1)
    heatmap = onto_original(scaled, placement, frames).numpy()
    alpha = 255 * opacity * (1 - (1 - heatmap.reshape(size)) ** 2)
    return np.asarray(alpha, np.float64)
