"""What tests read off an open page."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmcam.grids import onto_original
from mmcam.results.explanation import Explanation
from mmcam.types import Placement


def until(page: Any, condition: str) -> None:
    """Wait for it; playwright's own way evaluates text in the page, which its policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        time.sleep(0.05)
    pytest.fail(f"never came true: {condition}")


def alphas(page: Any, selector: str = ".stage.large canvas") -> np.ndarray:
    """How much each pixel of a map covers, in 1/255."""
    uri = page.eval_on_selector(selector, "canvas => canvas.toDataURL()")
    drawn = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return np.asarray(drawn.convert("RGBA"), np.float64)[..., 3]


def expected(
    item: Explanation, size: tuple[int, ...], frame: int | None = None, opacity: float = 0.55
) -> np.ndarray:
    """The same by mmcam's own interpolation: the map at this size, as much as it covers."""
    box = (0.0, 0.0, float(size[1]), float(size[0]))
    place = Placement(size=(size[0], size[1]), box=box, spans=item.placement.spans)
    frames = None if frame is None else [frame]
    heat = onto_original(item.saliency.clamp(min=0) / (item.maximum or 1), place, frames).numpy()
    cover = 255 * opacity * (1 - (1 - heat.reshape(size)) ** 2)
    return np.asarray(cover, np.float64)
