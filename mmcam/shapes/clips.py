"""Clips in which one object acts among others that stand still or jitter.

The first frame is drawn before an action is chosen, and has room for every action: it is the same,
to the last bit, whatever the action will be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from mmcam.errors import InputError, LabelError, nearest
from mmcam.shapes.dice import Dice
from mmcam.shapes.drawing import FORMS, FULL, background, mixed, shade, stamp
from mmcam.shapes.scenes import check
from mmcam.shapes.words import ACTIONS, COLOURS, HALVES, PATTERNS, SHAPES, TONES, Paint

SHORTEST = 8
"""The fewest frames that an action can be seen in."""

_RADII = (4.8, 6.6)
"""From and to, on a frame of 64 x 64 pixels."""

_ROOM = 8.5
"""How far an object lies from the edges and from the others, in pixels of a frame of 64 x 64."""

_GAP = 2.5
"""How near a sliding object comes to another one at most, in the same pixels."""

_LEAST = 5.0
"""How far a sliding or bouncing object goes at least, in the same pixels."""

_FARTHEST = 16.0
"""How far a sliding object goes at most, in the same pixels."""

_TRIES = 40
"""How often a place is looked for, and then a layout, before there are other objects."""

_GHOST = 2
"""How many of `FULL` parts opaque an object is while it has blinked away."""

_NOISE = 2
"""How far each value of a frame may lie from what was painted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mover:
    """One object of a clip. `colours` are those of the first frame."""

    shape: str
    colours: tuple[str, ...]
    texture: str
    motion: str
    """"acts", "jitters" or "stands"."""
    masks: Bool[np.ndarray, "frames height width"]
    """The pixels that show it in each frame; while it has blinked away, those it has left."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionClip:
    """A clip, and what goes on in it: `objects[actor]` does what `action` says."""

    seed: int
    pixels: UInt8[np.ndarray, "frames height width 3"]
    objects: tuple[Mover, ...]
    actor: int
    action: str
    span: tuple[int, int]
    """The first and the last frame of the action, of which the first still shows its beginning."""


class _State(NamedTuple):
    """How one object is drawn in one frame."""

    x: float
    y: float
    radius: float
    degrees: int
    paints: tuple[Paint, Paint]
    opacity: int = FULL


@dataclass(frozen=True, kw_only=True)
class _Body:
    """An object as the first frame has it."""

    shape: str
    colours: tuple[str, ...]
    coat: str
    state: _State


def clip(seed: int, frames: int = 16, size: int = 64, action: str | None = None) -> ActionClip:
    """The clip of this seed; with an `action`, the same world in which that is done.

    Two to four objects, on frames `size` pixels wide and high, keep clear of each other; one acts
    and the others stand or jitter. Every frame has a little noise. `SPLITS` says which seeds are
    for training.

    Raises:
        InputError: the seed is negative, or the clip too short or too small.
        LabelError: nobody can do this.
    """
    check(seed, size)
    if frames < SHORTEST:
        raise InputError(f"{frames} frames: no action is seen in them; give at least {SHORTEST}")
    if action is not None and action not in ACTIONS:
        raise LabelError(
            f"no object {action!r} here; nearest: {nearest(action, ACTIONS)}. "
            f"All of them: mmcam.shapes.ACTIONS"
        )
    dice = Dice(2, seed, size, frames)
    # All that the first frame shows is drawn from these dice, and the action from others.
    bodies = _bodies(dice, size)
    pixels = background(dice, dice.choose(TONES), dice.choose(PATTERNS), size)
    actor = dice.below(len(bodies))
    noise = dice.bytes(frames, size, size, 3) % (2 * _NOISE + 1)
    jitters = [dice.happens(60) for _ in bodies]
    paths = [
        _jitter(dice, body.state, size / 64, frames) if moves else [body.state] * frames
        for body, moves in zip(bodies, jitters, strict=True)
    ]
    acts = Dice(3, seed, size, frames)
    chosen = acts.choose(ACTIONS)
    span = (acts.below(frames // 6 + 1), frames - 1 - acts.below(frames // 6 + 1))
    paths[actor] = _act(acts, action or chosen, bodies, actor, size, frames, span)
    painted, masks = _painted(pixels, bodies, paths)
    motions = ["jitters" if moves else "stands" for moves in jitters]
    motions[actor] = "acts"
    return ActionClip(
        seed=seed,
        pixels=np.clip(painted.astype(np.int16) + noise - _NOISE, 0, 255).astype(np.uint8),
        objects=tuple(
            Mover(
                shape=body.shape,
                colours=body.colours,
                texture="plain" if body.coat in HALVES else body.coat,
                motion=motion,
                masks=mask,
            )
            for body, motion, mask in zip(bodies, motions, masks, strict=True)
        ),
        actor=actor,
        action=action or chosen,
        span=span,
    )


def _bodies(dice: Dice, size: int) -> list[_Body]:
    """Objects in places that leave each of them the room to do anything."""
    count = dice.choose([2, 3, 3, 4])
    while True:
        shapes = [dice.choose(tuple(SHAPES)) for _ in range(count)]
        radii = [dice.quarter(*(size / 64 * bound for bound in _RADII)) for _ in shapes]
        places = _places(dice, list(map(_reach, shapes, radii)), size)
        if places:
            break
    colours = dice.sample(tuple(COLOURS), 2 * count)
    bodies = []
    for index, (shape, radius, (x, y)) in enumerate(zip(shapes, radii, places, strict=True)):
        # Each coat shows when its object turns, also that of a circle.
        coat = dice.choose((*HALVES, "striped", "checked"))
        own = tuple(colours[2 * index : 2 * index + (2 if coat in HALVES else 1)])
        state = _State(x, y, radius, 3 * dice.below(120), _paints(dice, own))
        bodies.append(_Body(shape=shape, colours=own, coat=coat, state=state))
    return bodies


def _places(dice: Dice, reaches: Sequence[float], size: int) -> list[tuple[float, float]]:
    """Centres for objects that reach so far; none if they found no room."""
    room = _ROOM * size / 64
    for _ in range(_TRIES):
        found: list[tuple[float, float]] = []
        for reach in reaches:
            for _ in range(_TRIES):
                x, y = (dice.quarter(reach + room, size - reach - room) for _ in range(2))
                if all(
                    _clear((x, y), place, reach + other + room)
                    for place, other in zip(found, reaches, strict=False)
                ):
                    found.append((x, y))
                    break
        if len(found) == len(reaches):
            return found
    return []


def _paints(dice: Dice, colours: Sequence[str]) -> tuple[Paint, Paint]:
    """The two paints of an object of one or two colours."""
    first, *others = (mixed(dice, colour) for colour in colours)
    return first, others[0] if others else shade(first)


def _reach(shape: str, radius: float) -> float:
    """How far the outermost point of a shape lies from its centre, in pixels."""
    return FORMS[shape].reach * radius


def _clear(first: tuple[float, float], other: tuple[float, float], distance: float) -> bool:
    """Whether two points (x, y) are at least so far apart."""
    right, down = first[0] - other[0], first[1] - other[1]
    return right * right + down * down >= distance * distance


def _jitter(dice: Dice, state: _State, unit: float, frames: int) -> list[_State]:
    """Small jumps about one place, from the second frame on."""
    found = [state]
    for _ in range(frames - 1):
        right, down, turn = (dice.between(-1, 1) for _ in range(3))
        jumped = _moved(state, right * unit, down * unit)
        found.append(jumped._replace(degrees=state.degrees + 3 * turn))
    return found


def _act(
    dice: Dice,
    action: str,
    bodies: Sequence[_Body],
    actor: int,
    size: int,
    frames: int,
    span: tuple[int, int],
) -> list[_State]:
    """The actor in each frame."""
    body = bodies[actor]
    others = [other for other in bodies if other is not body]
    state, unit = body.state, size / 64
    first, last = span
    # How much of the action is done in each frame.
    done = [min(max((frame - first) / (last - first), 0.0), 1.0) for frame in range(frames)]
    if action in _WAYS:
        right, down = _WAYS[action]
        free = _free(body, others, right, down, size)
        far = dice.quarter(max(_LEAST * unit, 0.6 * free), free)
        return [_moved(state, right * far * share, down * far * share) for share in done]
    if action == "bounces":
        free = _free(body, others, 0, -1, size)
        high, hops = dice.quarter(_LEAST * unit, min(free, 10 * unit)), dice.between(2, 3)
        phases = [hops * share % 1 for share in done]
        return [_moved(state, 0, -4 * high * phase * (1 - phase)) for phase in phases]
    if action in ("grows", "shrinks"):
        end = dice.between(145, 165) / 100 if action == "grows" else dice.between(48, 62) / 100
        return [
            state._replace(radius=_eighths(state.radius * (1 + (end - 1) * share)))
            for share in done
        ]
    if action == "spins":
        turns = dice.between(240, 400) * dice.choose([-1, 1])
        return [state._replace(degrees=state.degrees + round(turns * share)) for share in done]
    if action == "blinks":
        beat = max(2, frames // 8)
        gone = [first <= frame <= last and (frame - first) // beat % 2 for frame in range(frames)]
        return [state._replace(opacity=_GHOST if away else FULL) for away in gone]
    new = dice.sample([name for name in COLOURS if name not in body.colours], len(body.colours))
    (old, other), (paint, second) = state.paints, _paints(dice, new)
    return [
        state._replace(paints=(_between(old, paint, share), _between(other, second, share)))
        for share in done
    ]


_WAYS = {
    "slides left": (-1, 0),
    "slides right": (1, 0),
    "slides up": (0, -1),
    "slides down": (0, 1),
}


def _free(body: _Body, others: Sequence[_Body], right: int, down: int, size: int) -> float:
    """How far an object can go before it comes to an edge or near another one, in pixels."""
    unit, free, own = size / 64, 0.0, _reach(body.shape, body.state.radius)
    near = [
        (other.state[:2], own + _reach(other.shape, other.state.radius) + _GAP * unit)
        for other in others
    ]
    while free < _FARTHEST * unit:
        x, y = body.state.x + right * (free + 1), body.state.y + down * (free + 1)
        if min(x, y, size - x, size - y) < own + 0.5 or not all(
            _clear((x, y), place, distance) for place, distance in near
        ):
            break
        free += 1
    return free


def _moved(state: _State, right: float, down: float) -> _State:
    return state._replace(x=_eighths(state.x + right), y=_eighths(state.y + down))


def _eighths(length: float) -> float:
    """The nearest multiple of 1/8 of a pixel."""
    return round(8 * length) / 8


def _between(start: Paint, end: Paint, share: float) -> Paint:
    """The paint after so much of a change from one to the other."""
    red, green, blue = (a + round((b - a) * share) for a, b in zip(start, end, strict=True))
    return red, green, blue


def _painted(
    ground: UInt8[np.ndarray, "height width 3"],
    bodies: Sequence[_Body],
    paths: Sequence[Sequence[_State]],
) -> tuple[UInt8[np.ndarray, "frames height width 3"], Bool[np.ndarray, "n frames height width"]]:
    """The frames, and where each object is seen in each of them."""
    frames = np.repeat(ground[None], len(paths[0]), 0)
    masks = np.zeros((len(bodies), *frames.shape[:3]), bool)
    for index, (body, path) in enumerate(zip(bodies, paths, strict=True)):
        for frame, state in enumerate(path):
            placed = stamp(
                body.shape, body.coat, state.radius, state.degrees % 360, (state.x, state.y)
            )
            placed.paint(frames[frame], *state.paints, state.opacity)
            # What is painted later lies in front.
            covered = placed.covered()
            masks[:index, frame, placed.box[0], placed.box[1]] &= ~covered
            masks[index, frame, placed.box[0], placed.box[1]] = covered
    return frames, masks
