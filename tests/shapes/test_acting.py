"""In a clip one object performs the action, and nothing else changes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mmcam import shapes
from mmcam.errors import InputError, LabelError
from mmcam.shapes import ActionClip
from tests.shapes.many import clips, unchecked

SEEDS = st.integers(0, 2**32 - 1)
SLIDES = {
    "slides left": (0, -1),
    "slides right": (0, 1),
    "slides up": (-1, 0),
    "slides down": (1, 0),
}


def _centres(masks: np.ndarray) -> np.ndarray:
    return np.array([np.argwhere(mask).mean(0) for mask in masks])


def _acting(seed: int, action: str) -> tuple[ActionClip, np.ndarray]:
    with unchecked():
        clip = shapes.clip(seed, action=action)
    assert clip.action == action
    return clip, clip.objects[clip.actor].masks


def _colours(clip: ActionClip) -> np.ndarray:
    """The mean colour of the actor's pixels in each frame."""
    masks = clip.objects[clip.actor].masks
    return np.array([frame[mask].mean(0) for frame, mask in zip(clip.pixels, masks, strict=True)])


@settings(max_examples=10)
@given(seed=SEEDS, action=st.sampled_from(list(SLIDES)))
def test_what_slides_goes_one_way(seed: int, action: str) -> None:
    clip, masks = _acting(seed, action)
    along, across = (
        _centres(masks) @ np.array(direction)
        for direction in (SLIDES[action], SLIDES[action][::-1])
    )
    assert along[-1] - along[0] > 4.5
    steps = np.diff(along)
    first, last = clip.span
    assert steps[first:last].min() > -0.3
    assert (along[first + 3 : last + 1] > along[first : last - 2]).all()
    assert not steps[:first].any()
    assert not steps[last:].any()
    assert np.ptp(across) < 0.7


@settings(max_examples=10)
@given(seed=SEEDS)
def test_what_bounces_goes_up_and_comes_down_again(seed: int) -> None:
    _, masks = _acting(seed, "bounces")
    down, right = _centres(masks).T
    height = down[0] - down
    assert abs(height[-1]) < 0.3
    assert height.min() > -0.3
    assert height.max() > 3.5
    hops = ndimage.label(height > height.max() / 2)[1]
    assert hops in (2, 3)
    assert np.ptp(right) < 0.7


@settings(max_examples=10)
@given(seed=SEEDS, action=st.sampled_from(["grows", "shrinks"]))
def test_what_grows_or_shrinks_stays_where_it_is(seed: int, action: str) -> None:
    _, masks = _acting(seed, action)
    areas = masks.sum((1, 2)) / masks[0].sum()
    assert areas[-1] > 1.7 if action == "grows" else areas[-1] < 0.55
    steps = np.diff(areas) * (1 if action == "grows" else -1)
    assert steps.min() > -0.2
    assert abs(_centres(masks) - _centres(masks)[0]).max() < 1.5


@settings(max_examples=10)
@given(seed=SEEDS)
def test_what_spins_keeps_its_place_and_area(seed: int) -> None:
    clip, masks = _acting(seed, "spins")
    np.testing.assert_allclose(masks.sum((1, 2)), masks[0].sum(), rtol=0.4)
    assert abs(_centres(masks) - _centres(masks)[0]).max() < 3.5
    change = abs(np.diff(clip.pixels.astype(int), axis=0)).mean(3)
    spinning = [change[frame][masks[frame]].mean() for frame in range(*clip.span)]
    # The texture moves over each pixel, which changes far more than by noise.
    assert np.mean(spinning) > 4


@settings(max_examples=10)
@given(seed=SEEDS)
def test_what_blinks_is_there_and_gone_in_turn(seed: int) -> None:
    clip, masks = _acting(seed, "blinks")
    assert (masks == masks[0]).all()
    frames = clip.pixels.astype(int)
    change = abs(frames - frames[0])[:, masks[0]].mean((1, 2)) > 15
    assert not change[0]
    assert ndimage.label(change)[1] >= 2


@settings(max_examples=10)
@given(seed=SEEDS)
def test_what_changes_colour_does_only_that(seed: int) -> None:
    clip, masks = _acting(seed, "changes color")
    assert (masks == masks[0]).all()
    frames = clip.pixels[:, masks[0]].astype(int)
    change = abs(frames - frames[0]).mean((1, 2))
    assert change[-1] > 20
    first, last = clip.span
    assert (np.diff(change[first : last + 1]) > -2).all()


@settings(max_examples=8)
@given(seed=SEEDS)
def test_all_actions_share_the_rest_of_the_clip(seed: int) -> None:
    with unchecked():
        clips = [shapes.clip(seed, frames=8, action=action) for action in shapes.ACTIONS]
    # The first frame, including its noise, does not depend on the action.
    for clip in clips:
        np.testing.assert_array_equal(clip.pixels[0], clips[0].pixels[0])
    for first, other in combinations(clips[::3], 2):
        actor_masks = [clip.objects[clip.actor].masks for clip in (first, other)]
        # Thin tips reach beyond the mask, which has only pixels that are half covered.
        around = ndimage.binary_dilation(actor_masks[0] | actor_masks[1], np.ones((1, 7, 7)))
        np.testing.assert_array_equal(first.pixels[~around], other.pixels[~around])
        for index, (first_object, other_object) in enumerate(
            zip(first.objects, other.objects, strict=True)
        ):
            if index != first.actor:
                np.testing.assert_array_equal(first_object.masks, other_object.masks)


@given(seed=SEEDS, size=st.sampled_from([48, 64, 112]), frames=st.sampled_from([8, 16]))
@settings(max_examples=12)
def test_the_others_stand_or_jitter(seed: int, size: int, frames: int) -> None:
    clip = shapes.clip(seed, frames, size)
    assert clip.pixels.shape == (frames, size, size, 3)
    assert 2 <= len(clip.objects) <= 4
    for index, clip_object in enumerate(clip.objects):
        assert clip_object.masks.shape == (frames, size, size)
        assert (clip_object.motion == "acts") == (index == clip.actor)
        offset = abs(_centres(clip_object.masks) - _centres(clip_object.masks)[0])
        if clip_object.motion == "stands":
            assert (clip_object.masks == clip_object.masks[0]).all()
        if clip_object.motion == "jitters":
            assert 0.3 < offset.max() * 64 / size < 2.2
            np.testing.assert_allclose(
                clip_object.masks.sum((1, 2)), clip_object.masks[0].sum(), rtol=0.4
            )


def test_objects_stay_in_the_picture_and_apart() -> None:
    for clip in clips("test", 120):
        for clip_object in clip.objects:
            assert clip_object.masks[:, 1:-1, 1:-1].any((1, 2)).all()
            edges = (clip_object.masks[:, [0, -1]], clip_object.masks[:, :, [0, -1]])
            assert not any(edge.any() for edge in edges)
        for first, other in combinations(clip.objects, 2):
            assert not (first.masks & other.masks).any()


def test_every_action_and_motion_occurs() -> None:
    all_clips = clips("test", 120)
    assert {clip.action for clip in all_clips} == {*shapes.ACTIONS}
    assert {clip_object.motion for clip in all_clips for clip_object in clip.objects} == {
        "acts",
        "jitters",
        "stands",
    }
    assert {len(clip.objects) for clip in all_clips} == {2, 3, 4}
    assert {clip_object.shape for clip in all_clips for clip_object in clip.objects} == {
        *shapes.SHAPES
    }


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(InputError, match=r"7 frames.*at least 8"):
        shapes.clip(0, frames=7)
    with pytest.raises(InputError, match="size 32"):
        shapes.clip(0, size=32)
    with pytest.raises(LabelError, match="no action 'spin'; nearest: spins"):
        shapes.clip(0, action="spin")
