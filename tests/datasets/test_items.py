"""Regions as masks and boxes, and the window of a clip that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmcam.datasets import Item, Region
from mmcam.errors import EvaluationError, InputError
from mmcam.types import Window

SIZE = (6, 8)


def test_boxes_become_masks_and_masks_boxes(tmp_path: Path) -> None:
    boxes = Region(boxes=((1, 2, 3, 4), (5, 0, 8, 1)))
    mask = boxes.mask(SIZE)
    assert mask.sum() == 2 * 2 + 3 * 1
    assert mask[2:4, 1:3].all()
    Image.fromarray(mask.astype(np.uint8) * 9).save(tmp_path / "mask.png")
    drawn = Region(masks=(str(tmp_path / "mask.png"),))
    assert (drawn.mask(SIZE) == mask).all()
    assert drawn.boxes_on(SIZE) == ((1, 0, 8, 4),)
    assert boxes.boxes_on(SIZE) == boxes.boxes
    both = Region(boxes=((0, 0, 8, 6),)).joined(drawn)
    assert (both.mask(SIZE) == mask).all()  # what is drawn goes before a box


def test_regions_that_do_not_fit(tmp_path: Path) -> None:
    Image.new("L", (8, 6)).save(tmp_path / "empty.png")
    region = Region(masks=(str(tmp_path / "empty.png"),))
    with pytest.raises(EvaluationError, match="empty"):
        region.boxes_on(SIZE)
    with pytest.raises(InputError, match="8 x 6 pixels for a picture of 9 x 6"):
        region.mask((6, 9))
    with pytest.raises(EvaluationError, match="no box"):
        Region().mask(SIZE)


def clip(frames: int) -> np.ndarray:
    """Frame n is n everywhere."""
    numbers = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(numbers, (frames, 4, 5, 3)).copy()


def test_the_window_lies_in_the_middle_of_the_clip() -> None:
    item = Item(id="clip", source=clip(40))
    pixels = item.read(Window(frames=4, stride=2)).pixels
    assert pixels[:, 0, 0, 0].tolist() == [17, 19, 21, 23]  # the middles of parts of 16 .. 24
    short = Item(id="clip", source=clip(3)).read(Window(frames=4, stride=2)).pixels
    assert short[:, 0, 0, 0].tolist() == [0, 1, 1, 2]


def test_a_span_is_in_seconds() -> None:
    # An array has 25 frames a second: seconds 1 to 1.4 are frames 25 to 35.
    item = Item(id="clip", source=clip(60), span=(1.0, 1.4))
    assert item.read(Window(frames=2)).pixels[:, 0, 0, 0].tolist() == [29, 30]
    late = Item(id="late", source=clip(10), span=(3.0, 4.0))
    with pytest.raises(InputError, match="late: the span"):
        late.read(Window(frames=2))


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose a video model"):
        Item(id="x", source=str(tmp_path)).read(None)


def test_the_text_goes_with_the_sample() -> None:
    sample = Item(id="x", source=np.zeros((4, 5, 3), np.uint8), text="what?").read(None)
    assert (sample.id, sample.text) == ("x", "what?")
