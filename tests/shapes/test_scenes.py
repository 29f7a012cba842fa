"""The masks of scenes are right, and their pictures are reproducible."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from mmcam import shapes
from mmcam.errors import InputError
from mmcam.shapes.drawing import FORMS, FULL, rasterise, shade
from mmcam.shapes.random_stream import RandomStream
from mmcam.shapes.words import HALVES, JITTER, PATTERNS, TEXTURES, TONES
from tests.shapes.many import scenes

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([48, 64, 96, 131])

GOLDEN = "7baea4037b2263ca5f00fe25e56fd4420451dcc8e79e69f7f80bd92ce0397418"


def test_the_world_is_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for seed in [*range(60), *range(1_000_000, 1_000_030)]:
        scene = shapes.scene(seed, size=96 if seed % 3 else 64)
        digest.update(scene.pixels.tobytes())
        for thing in scene.objects:
            digest.update(repr((thing.shape, thing.size, thing.texture, thing.centre)).encode())
            for part in thing.parts:
                digest.update(repr((part.colour, part.paint, part.place)).encode())
                digest.update(part.mask.tobytes())
        caption = shapes.caption(scene)
        digest.update(caption.text.encode())
        for word in caption.words:
            digest.update(b"" if word.mask is None else word.mask.tobytes())
        for question in shapes.questions(scene):
            digest.update(
                repr(
                    (question.kind, question.text, question.answer, list(question.answers))
                ).encode()
            )
            for mask in (*question.answers.values(), question.about):
                digest.update(b"" if mask is None else mask.tobytes())
    for seed in range(20):
        clip = shapes.clip(seed, action=shapes.ACTIONS[seed % 10] if seed < 10 else None)
        digest.update(clip.pixels.tobytes())
        digest.update(repr((clip.action, clip.actor, clip.span)).encode())
        for mover in clip.objects:
            digest.update(repr((mover.shape, mover.colours, mover.motion)).encode())
            digest.update(mover.masks.tobytes())
    assert digest.hexdigest() == GOLDEN


@settings(max_examples=10)
@given(seed=SEEDS, size=SIZES)
def test_a_seed_gives_one_scene(seed: int, size: int) -> None:
    first, second = shapes.scene(seed, size), shapes.scene(seed, size)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.pixels.shape == (size, size, 3)
    other = shapes.scene(seed + 1, size)
    assert (other.pixels != first.pixels).any()


@given(seed=SEEDS, size=SIZES)
def test_masks_partition_the_picture(seed: int, size: int) -> None:
    scene = shapes.scene(seed, size)
    assert 1 <= len(scene.objects) <= 4
    masks = [part.mask for thing in scene.objects for part in thing.parts]
    np.testing.assert_array_equal(np.sum([*masks, scene.background], axis=0), 1)
    for thing in scene.objects:
        np.testing.assert_array_equal(thing.mask, np.any([p.mask for p in thing.parts], axis=0))


@given(seed=SEEDS, size=SIZES)
def test_later_things_lie_in_front_and_enough_of_each_is_seen(seed: int, size: int) -> None:
    scene = shapes.scene(seed, size)
    for index, thing in enumerate(scene.objects):
        hidden = np.zeros((size, size), bool)
        for other in scene.objects[index + 1 :]:
            hidden |= other.whole
        np.testing.assert_array_equal(thing.mask, thing.whole & ~hidden)
        assert thing.mask.sum() >= 0.7 * thing.whole.sum()
        for part in thing.parts:
            assert part.mask.sum() * len(thing.parts) >= 0.7 * thing.whole.sum()


def test_things_overlap_often_enough() -> None:
    occluded = [
        any((thing.mask != thing.whole).any() for thing in scene.objects)
        for scene in scenes("test", 500)
    ]
    assert np.mean(occluded) > 0.2


@given(seed=SEEDS, size=SIZES)
def test_pixels_of_a_part_have_its_paint(seed: int, size: int) -> None:
    scene = shapes.scene(seed, size)
    for thing in scene.objects:
        others = [other.whole for other in scene.objects if other is not thing]
        for part in thing.parts:
            middle = np.array(shapes.COLOURS[part.colour])
            assert abs(np.array(part.paint) - middle).max() <= JITTER
            pixels = scene.pixels[_inside(part.mask, others)].astype(int)
            if thing.texture == "plain":
                assert (pixels == part.paint).all()
            else:
                # Between the paint and its shade, and not only one of them.
                ends = np.sort([part.paint, shade(part.paint)], axis=0)
                assert (pixels >= ends[0] - 1).all()
                assert (pixels <= ends[1] + 1).all()
                seen = scene.pixels[thing.mask].astype(int).sum(1)
                assert np.ptp(seen) > 0.5 * np.ptp(ends.sum(1))


@given(seed=SEEDS, size=SIZES)
def test_the_background_shows_wherever_no_thing_is(seed: int, size: int) -> None:
    scene = shapes.scene(seed, size)
    assert scene.tone in TONES
    assert scene.pattern in PATTERNS
    wholes = [thing.whole for thing in scene.objects]
    pixels = scene.pixels[_inside(scene.background, wholes)].astype(int)
    levels = (168 - 40, 196 + 40) if scene.tone == "light" else (62 - 40, 86 + 40)
    assert levels[0] <= pixels.min()
    assert pixels.max() <= levels[1]
    if scene.pattern == "plain":
        assert (pixels == pixels[0]).all()
    else:
        assert np.ptp(pixels.sum(1)) > 3 * 10


@given(seed=SEEDS, size=SIZES)
def test_halves_lie_on_their_named_sides(seed: int, size: int) -> None:
    for thing in shapes.scene(seed, size).objects:
        if len(thing.parts) == 1:
            assert thing.parts[0].place == ""
            continue
        assert thing.texture == "plain"
        first, second = thing.parts
        assert (first.place, second.place) in HALVES.values()
        axis = 1 if first.place == "left" else 0
        assert np.nonzero(first.mask)[axis].max() <= np.nonzero(second.mask)[axis].min()
        assert first.colour != second.colour


def test_pairs_of_colours_are_far_apart() -> None:
    for first, other in combinations(shapes.COLOURS.values(), 2):
        assert np.linalg.norm(np.subtract(first, other)) > 4 * JITTER * 3**0.5 * 0.9


@given(seed=SEEDS)
def test_things_of_one_colour_do_not_touch(seed: int) -> None:
    for first, other in combinations(shapes.scene(seed, 64).objects, 2):
        if set(first.colours) & set(other.colours):
            assert not (ndimage.binary_dilation(first.whole, np.ones((3, 3))) & other.whole).any()


@given(seed=SEEDS, size=SIZES)
def test_large_and_small_things_can_be_told_apart(seed: int, size: int) -> None:
    areas = {"large": [], "small": []}
    for thing in shapes.scene(seed, size).objects:
        areas[thing.size].append(thing.whole.sum() * (96 / size) ** 2)
    assert all(area > 460 for area in areas["large"])
    assert all(area < 340 for area in areas["small"])


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_a_shape_keeps_its_area_however_it_turns(shape: str) -> None:
    areas = [
        rasterise(shape, "plain", 17.0, degrees, (50.25, 49.5)).cover.sum() / FULL / 17**2
        for degrees in range(0, 360, 15)
    ]
    # About the area of the other shapes, and nothing cut off by the edges of the box.
    np.testing.assert_allclose(areas, areas[0], rtol=0.03)
    assert 2.2 < areas[0] < 2.6


@pytest.mark.parametrize("fill", HALVES)
@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_halves_have_the_same_area(shape: str, fill: str) -> None:
    raster = rasterise(shape, fill, 30.0, 0, (60.0, 60.0))
    assert raster.second.sum() / raster.cover.sum() == pytest.approx(0.5, abs=0.015)


def test_shapes_are_those_of_their_names() -> None:
    def corners(radii: list[float], start: float) -> list[tuple[float, float]]:
        angles = np.radians(start + 360 / len(radii) * np.arange(len(radii)))
        return [
            (60 + r * np.cos(a), 60 + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)
        ]

    # A pentagram's inner corners lie at 0.382 of its outer ones, these at 0.44 / cos 72 degrees.
    tip = 30 * 0.44 / np.cos(np.radians(72))
    drawn = {
        "star": corners([tip, 0.382 * tip] * 5, -90),
        "square": corners([30 * 0.79 * 2**0.5] * 4, 45),
        "triangle": corners([30 * 1.345] * 3, -90),
    }
    for shape, polygon in drawn.items():
        picture = Image.new("1", (1200, 1200))
        ImageDraw.Draw(picture).polygon([(10 * x, 10 * y) for x, y in polygon], fill=1)
        expected, mask = np.array(picture)[5::10, 5::10], np.zeros((120, 120), bool)
        raster = rasterise(shape, "plain", 30.0, 0, (60.0, 60.0))
        mask[raster.box] = raster.covered()
        assert (expected & mask).sum() / (expected | mask).sum() > 0.97
    holes = {name: ndimage.label(~_mask(name))[1] for name in FORMS}
    assert {name for name, count in holes.items() if count > 1} == {"ring"}


def test_splits_do_not_overlap() -> None:
    for first, other in combinations(shapes.SPLITS.values(), 2):
        assert first.stop <= other.start or other.stop <= first.start
    assert shapes.SPLITS["train"].start == 1_000_000


@pytest.mark.parametrize(("seed", "size"), [(-1, 96), (0, 47)])
def test_what_cannot_be_drawn_is_refused(seed: int, size: int) -> None:
    with pytest.raises(InputError, match=r"seed|pixels"):
        shapes.scene(seed, size)


def test_random_streams_are_fair_and_bounded() -> None:
    rng = RandomStream(7)
    drawn = [rng.between(2, 5) for _ in range(2000)]
    assert set(drawn) == {2, 3, 4, 5}
    assert np.bincount(drawn)[2:].min() > 400
    assert sorted(rng.sample("abc", 3)) == ["a", "b", "c"]
    assert rng.bytes(3, 5).shape == (3, 5)
    assert [RandomStream(1, 2).below(10**9)] != [RandomStream(2, 1).below(10**9)]
    assert {rng.quarter(1, 1.6) for _ in range(50)} == {1, 1.25, 1.5}


def test_textures_all_occur() -> None:
    things = [thing for scene in scenes("test", 500) for thing in scene.objects]
    assert {thing.texture for thing in things} == {*TEXTURES}
    assert {thing.shape for thing in things} == {*shapes.SHAPES}
    assert {colour for thing in things for colour in thing.colours} == {*shapes.COLOURS}


def _inside(mask: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """The pixels of a mask that no other paint reaches: thin tips extend beyond their masks."""
    near = np.any([np.zeros_like(mask), *others], axis=0)
    edges = ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
    return edges & ~ndimage.binary_dilation(near, np.ones((3, 3)), iterations=3)


def _mask(shape: str) -> np.ndarray:
    raster = rasterise(shape, "plain", 30.0, 0, (60.0, 60.0))
    return np.pad(raster.covered(), 1)
