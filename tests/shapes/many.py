"""Many worlds for the tests that count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import jaxtyping

from mmcam import shapes
from mmcam.shapes import ActionClip, Scene


@contextmanager
def unchecked() -> Iterator[None]:
    """Without the checks of shapes, which take most of the time where functions are short."""
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


def asked(scenes: Iterable[Scene]) -> list[tuple[Scene, shapes.Question]]:
    """The questions of all the scenes, each with its scene."""
    with unchecked():
        return [(scene, ask) for scene in scenes for ask in shapes.questions(scene)]
