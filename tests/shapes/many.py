"""Many scenes and clips for the statistical tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import jaxtyping

from mmcam import shapes
from mmcam.shapes import ActionClip, Scene


@contextmanager
def unchecked() -> Iterator[None]:
    """Disable the runtime checks of array shapes, which dominate the time of short functions."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@cache
def scenes(split: str, count: int) -> tuple[Scene, ...]:
    """The first small scenes of a split."""
    with unchecked():
        return tuple(shapes.scene(seed, 48) for seed in shapes.SPLITS[split][:count])


@cache
def clips(split: str, count: int) -> tuple[ActionClip, ...]:
    """The first clips of a split."""
    with unchecked():
        return tuple(shapes.clip(seed) for seed in shapes.SPLITS[split][:count])


def scene_questions(scenes: Iterable[Scene]) -> list[tuple[Scene, shapes.Question]]:
    """The questions of all scenes, each with its scene."""
    with unchecked():
        return [(scene, question) for scene in scenes for question in shapes.questions(scene)]
