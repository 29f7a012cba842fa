"""Clips in which one object performs an action while the others stand still or jitter.

The first frame is drawn before the action is chosen and leaves room for every action. It is the
same, to the last bit, for all actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from mmcam.errors import InputError, LabelError, nearest
from mmcam.shapes.drawing import FORMS, FULL, background, jittered_paint, rasterise, shade
from mmcam.shapes.random_stream import RandomStream
from mmcam.shapes.scenes import check_arguments
from mmcam.shapes.words import ACTIONS, COLOURS, HALVES, PATTERNS, SHAPES, TONES, Paint

MIN_FRAMES = 8
"""The minimum number of frames in a clip."""

_RADII = (4.8, 6.6)
"""The range of radii, for a frame of 64 x 64 pixels."""

_CLEARANCE = 8.5
"""The minimum distance of an object from the edges and the other objects, for 64 x 64 pixels."""

_SLIDE_GAP = 2.5
"""The minimum distance of a sliding object from another object, for 64 x 64 pixels."""

_MIN_TRAVEL = 5.0
"""The minimum travel of a sliding or bouncing object, for 64 x 64 pixels."""

_MAX_TRAVEL = 16.0
"""The maximum travel of a sliding object, for 64 x 64 pixels."""

_TRIES = 40
"""The number of positions tried for an object, and of layouts tried for a set of objects."""

_BLINK_OPACITY = 2
"""The opacity of a blinking object while it is off, out of `FULL`."""

_NOISE = 2
"""The maximum noise added to each value of a frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipObject:
    """An object of a clip. `colours` are those in the first frame."""

    shape: str
    colours: tuple[str, ...]
    texture: str
    motion: str
    """"acts", "jitters" or "stands"."""
    masks: Bool[np.ndarray, "frames height width"]
    """The visible pixels in each frame, as if a blinking object were always on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionClip:
    """A clip in which `objects[actor]` performs `action`."""

    seed: int
    pixels: UInt8[np.ndarray, "frames height width 3"]
    objects: tuple[ClipObject, ...]
    actor: int
    action: str
    span: tuple[int, int]
    """The first and the last frame of the action; the first still shows the initial state."""


class _State(NamedTuple):
    """The state in which an object is drawn in one frame."""

    x: float
    y: float
    radius: float
    degrees: int
    paints: tuple[Paint, Paint]
    opacity: int = FULL


@dataclass(frozen=True, kw_only=True)
class _Body:
    """An object in the first frame."""

    shape: str
    colours: tuple[str, ...]
    fill: str
    state: _State


def clip(seed: int, frames: int = 16, size: int = 64, action: str | None = None) -> ActionClip:
    """The clip of this seed; `action` replaces the action that the seed gives.

    Two to four objects, on frames `size` pixels wide and high, keep apart from each other; one acts
    and the others stand or jitter. Every frame has a little noise. See `SPLITS` for the seeds of
    each split.

    Raises:
        InputError: the seed is negative, or the clip is too short or too small.
        LabelError: there is no such action.
    """
    check_arguments(seed, size)
    if frames < MIN_FRAMES:
        raise InputError(
            f"{frames} frames are too few to show an action; give at least {MIN_FRAMES}"
        )
    if action is not None and action not in ACTIONS:
        raise LabelError(
            f"there is no action {action!r}; nearest: {nearest(action, ACTIONS)}. "
            f"All of them: mmcam.shapes.ACTIONS"
        )
    rng = RandomStream(2, seed, size, frames)
    # A separate stream draws the action, so that the first frame does not depend on it.
    bodies = _draw_bodies(rng, size)
    pixels = background(rng, rng.choose(TONES), rng.choose(PATTERNS), size)
    actor = rng.below(len(bodies))
    noise = rng.bytes(frames, size, size, 3) % (2 * _NOISE + 1)
    jitters = [rng.happens(60) for _ in bodies]
    paths = [
        _jitter(rng, body.state, size / 64, frames) if jitter else [body.state] * frames
        for body, jitter in zip(bodies, jitters, strict=True)
    ]
    action_rng = RandomStream(3, seed, size, frames)
    chosen = action_rng.choose(ACTIONS)
    span = (action_rng.below(frames // 6 + 1), frames - 1 - action_rng.below(frames // 6 + 1))
    paths[actor] = _act(action_rng, action or chosen, bodies, actor, size, frames, span)
    painted, masks = _paint_frames(pixels, bodies, paths)
    motions = ["jitters" if jitter else "stands" for jitter in jitters]
    motions[actor] = "acts"
    return ActionClip(
        seed=seed,
        pixels=np.clip(painted.astype(np.int16) + noise - _NOISE, 0, 255).astype(np.uint8),
        objects=tuple(
            ClipObject(
                shape=body.shape,
                colours=body.colours,
                texture="plain" if body.fill in HALVES else body.fill,
                motion=motion,
                masks=mask,
            )
            for body, motion, mask in zip(bodies, motions, masks, strict=True)
        ),
        actor=actor,
        action=action or chosen,
        span=span,
    )


def _draw_bodies(rng: RandomStream, size: int) -> list[_Body]:
    """Draw objects with enough room around each of them for any action."""
    count = rng.choose([2, 3, 3, 4])
    while True:
        shapes = [rng.choose(tuple(SHAPES)) for _ in range(count)]
        radii = [rng.quarter(*(size / 64 * bound for bound in _RADII)) for _ in shapes]
        centres = _place_centres(rng, list(map(_reach, shapes, radii)), size)
        if centres:
            break
    colours = rng.sample(tuple(COLOURS), 2 * count)
    bodies = []
    for index, (shape, radius, (x, y)) in enumerate(zip(shapes, radii, centres, strict=True)):
        # With these fills the rotation of any shape is visible, even of a circle.
        fill = rng.choose((*HALVES, "striped", "checked"))
        names = tuple(colours[2 * index : 2 * index + (2 if fill in HALVES else 1)])
        state = _State(x, y, radius, 3 * rng.below(120), _draw_paints(rng, names))
        bodies.append(_Body(shape=shape, colours=names, fill=fill, state=state))
    return bodies


def _place_centres(
    rng: RandomStream, reaches: Sequence[float], size: int
) -> list[tuple[float, float]]:
    """Draw centres for objects of these reaches; an empty list if they do not fit."""
    clearance = _CLEARANCE * size / 64
    for _ in range(_TRIES):
        centres: list[tuple[float, float]] = []
        for reach in reaches:
            for _ in range(_TRIES):
                x, y = (rng.quarter(reach + clearance, size - reach - clearance) for _ in range(2))
                if all(
                    _is_apart((x, y), centre, reach + other_reach + clearance)
                    for centre, other_reach in zip(centres, reaches, strict=False)
                ):
                    centres.append((x, y))
                    break
        if len(centres) == len(reaches):
            return centres
    return []


def _draw_paints(rng: RandomStream, colours: Sequence[str]) -> tuple[Paint, Paint]:
    """Draw the two paints of an object of one or two colours."""
    first, *others = (jittered_paint(rng, colour) for colour in colours)
    return first, others[0] if others else shade(first)


def _reach(shape: str, radius: float) -> float:
    """The distance of a shape's outermost point from its centre, in pixels."""
    return FORMS[shape].reach * radius


def _is_apart(first: tuple[float, float], other: tuple[float, float], distance: float) -> bool:
    """Whether two points (x, y) are at least `distance` apart."""
    right, down = first[0] - other[0], first[1] - other[1]
    return right * right + down * down >= distance * distance


def _jitter(rng: RandomStream, state: _State, unit: float, frames: int) -> list[_State]:
    """The state in each frame: `state`, then small random offsets from it."""
    states = [state]
    for _ in range(frames - 1):
        right, down, turn = (rng.between(-1, 1) for _ in range(3))
        moved = _move(state, right * unit, down * unit)
        states.append(moved._replace(degrees=state.degrees + 3 * turn))
    return states


def _act(
    rng: RandomStream,
    action: str,
    bodies: Sequence[_Body],
    actor: int,
    size: int,
    frames: int,
    span: tuple[int, int],
) -> list[_State]:
    """The state of the actor in each frame."""
    body = bodies[actor]
    others = [other for other in bodies if other is not body]
    state, unit = body.state, size / 64
    first, last = span
    # The progress of the action in each frame, from 0 to 1.
    progress = [min(max((frame - first) / (last - first), 0.0), 1.0) for frame in range(frames)]
    if action in _SLIDE_DIRECTIONS:
        right, down = _SLIDE_DIRECTIONS[action]
        free = _free_distance(body, others, right, down, size)
        travel = rng.quarter(max(_MIN_TRAVEL * unit, 0.6 * free), free)
        return [_move(state, right * travel * share, down * travel * share) for share in progress]
    if action == "bounces":
        free = _free_distance(body, others, 0, -1, size)
        height, hops = rng.quarter(_MIN_TRAVEL * unit, min(free, 10 * unit)), rng.between(2, 3)
        phases = [hops * share % 1 for share in progress]
        return [_move(state, 0, -4 * height * phase * (1 - phase)) for phase in phases]
    if action in ("grows", "shrinks"):
        end = rng.between(145, 165) / 100 if action == "grows" else rng.between(48, 62) / 100
        return [
            state._replace(radius=_round_to_eighths(state.radius * (1 + (end - 1) * share)))
            for share in progress
        ]
    if action == "spins":
        angle = rng.between(240, 400) * rng.choose([-1, 1])
        return [state._replace(degrees=state.degrees + round(angle * share)) for share in progress]
    if action == "blinks":
        period = max(2, frames // 8)
        is_off = [
            first <= frame <= last and (frame - first) // period % 2 for frame in range(frames)
        ]
        return [state._replace(opacity=_BLINK_OPACITY if off else FULL) for off in is_off]
    new_colours = rng.sample(
        [name for name in COLOURS if name not in body.colours], len(body.colours)
    )
    starts, ends = state.paints, _draw_paints(rng, new_colours)
    return [
        state._replace(
            paints=(_blend(starts[0], ends[0], share), _blend(starts[1], ends[1], share))
        )
        for share in progress
    ]


_SLIDE_DIRECTIONS = {
    "slides left": (-1, 0),
    "slides right": (1, 0),
    "slides up": (0, -1),
    "slides down": (0, 1),
}


def _free_distance(body: _Body, others: Sequence[_Body], right: int, down: int, size: int) -> float:
    """How far an object can move before it reaches an edge or another object, in pixels."""
    unit, free, reach = size / 64, 0.0, _reach(body.shape, body.state.radius)
    obstacles = [
        (other.state[:2], reach + _reach(other.shape, other.state.radius) + _SLIDE_GAP * unit)
        for other in others
    ]
    while free < _MAX_TRAVEL * unit:
        x, y = body.state.x + right * (free + 1), body.state.y + down * (free + 1)
        if min(x, y, size - x, size - y) < reach + 0.5 or not all(
            _is_apart((x, y), centre, distance) for centre, distance in obstacles
        ):
            break
        free += 1
    return free


def _move(state: _State, right: float, down: float) -> _State:
    return state._replace(x=_round_to_eighths(state.x + right), y=_round_to_eighths(state.y + down))


def _round_to_eighths(length: float) -> float:
    """The nearest multiple of 1/8 of a pixel."""
    return round(8 * length) / 8


def _blend(start: Paint, end: Paint, share: float) -> Paint:
    """The paint at `share` of the change from `start` to `end`."""
    red, green, blue = (a + round((b - a) * share) for a, b in zip(start, end, strict=True))
    return red, green, blue


def _paint_frames(
    background_pixels: UInt8[np.ndarray, "height width 3"],
    bodies: Sequence[_Body],
    paths: Sequence[Sequence[_State]],
) -> tuple[UInt8[np.ndarray, "frames height width 3"], Bool[np.ndarray, "n frames height width"]]:
    """The frames, and the visible pixels of each object in each frame."""
    frames = np.repeat(background_pixels[None], len(paths[0]), 0)
    masks = np.zeros((len(bodies), *frames.shape[:3]), bool)
    for index, (body, path) in enumerate(zip(bodies, paths, strict=True)):
        for frame, state in enumerate(path):
            raster = rasterise(
                body.shape, body.fill, state.radius, state.degrees % 360, (state.x, state.y)
            )
            raster.paint(frames[frame], *state.paints, state.opacity)
            # Later objects occlude earlier ones.
            covered = raster.covered()
            masks[:index, frame, raster.box[0], raster.box[1]] &= ~covered
            masks[index, frame, raster.box[0], raster.box[1]] = covered
    return frames, masks
