"""What the trainings of `train_shapes.py` have in common: scenes made once, and the learning."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn

from mmcam import shapes

CHUNK = 500
"""How many scenes one worker makes at a time."""


@dataclass(frozen=True)
class World:
    """Seeded scenes or clips: their pixels, and what is to be said of each."""

    pixels: np.ndarray
    told: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.pixels)


def tell_scene(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """A picture `[96 96 3]` and its caption."""
    scene = shapes.scene(seed)
    return scene.pixels, {"caption": shapes.caption(scene).text}


TURNS = 4
"""How often questions of a scene are drawn; different scenes cost more than other questions."""


def tell_asked(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """A picture `[96 96 3]`, questions of several turns with all right answers, and what is where.

    Each thing has its shape and colours, and its middle (x, y) with the picture from -1 to 1.
    """
    scene = shapes.scene(seed)
    drawn = [ask for turn in range(TURNS) for ask in shapes.questions(scene, turn)]
    asked = {ask.text: sorted(ask.answers) for ask in drawn}
    side = len(scene.pixels)
    things = [
        [[thing.shape, *thing.colours], *(round(2 * at / side - 1, 3) for at in thing.centre)]
        for thing in scene.objects
    ]
    return scene.pixels, {"questions": list(asked.items()), "things": things}


WINDOW = 64
"""The side of the window around a thing, in pixels: enough for a crop of 48 a little off it."""


def tell_thing(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """One thing of a scene in the middle of a window `[64 64 3]`, and what it looks like."""
    scene = shapes.scene(seed)
    thing = scene.objects[seed % len(scene.objects)]
    half = WINDOW // 2
    wide = np.pad(scene.pixels, ((half, half), (half, half), (0, 0)), mode="edge")
    x, y = (round(length) for length in thing.centre)
    place = thing.parts[0].place
    look = [thing.shape, thing.size, place or thing.texture, thing.colours[0], thing.colours[-1]]
    return wide[y : y + WINDOW, x : x + WINDOW], {"look": look}


def tell_clip(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """A clip `[16 64 64 3]`, its action, and where (x, y) the one that acts begins."""
    clip = shapes.clip(seed)
    rows, columns = clip.objects[clip.actor].masks[0].nonzero()
    place = [round(float(columns.mean())), round(float(rows.mean()))]
    return clip.pixels, {"action": clip.action, "place": place}


Teller = Callable[[int], tuple[np.ndarray, dict[str, Any]]]


def _chunk(asked: tuple[Teller, Sequence[int]]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    tell, seeds = asked
    made = [tell(seed) for seed in seeds]
    return np.stack([pixels for pixels, _ in made]), [told for _, told in made]


def world(tell: Teller, split: str, count: int, cache: Path, workers: int = 2) -> World:
    """The first `count` scenes or clips of a split, from the cache or made by `workers`."""
    pixels_file = cache / f"{tell.__name__}-{split}-{count}.npy"
    told_file = pixels_file.with_suffix(".json")
    if not told_file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        began, seeds = time.monotonic(), shapes.SPLITS[split][:count]
        shape = (count, *tell(seeds[0])[0].shape)
        pixels = open_memmap(pixels_file, mode="w+", dtype=np.uint8, shape=shape)
        told: list[dict[str, Any]] = []
        chunks = [(tell, seeds[start : start + CHUNK]) for start in range(0, count, CHUNK)]
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for found, words in pool.imap(_chunk, chunks):
                pixels[len(told) : len(told) + len(found)] = found
                told += words
        pixels.flush()
        told_file.write_text(json.dumps(told))
        print(f"{count} of {split} made in {time.monotonic() - began:.0f} s", flush=True)
    return World(np.load(pixels_file, mmap_mode="r"), json.loads(told_file.read_text()))


@dataclass(frozen=True)
class Course:
    """How a model learns: seed, number of steps, rows of a batch, and the highest rate."""

    seed: int
    steps: int
    batch: int
    rate: float
    decay: float = 0.02
    half: bool = True
    """Whether the forward runs in bfloat16 where torch can."""


def learn(
    model: nn.Module, losses: Callable[[Tensor], Sequence[Tensor]], rows: int, course: Course
) -> None:
    """Train by AdamW with a rate that rises and then falls to nothing.

    `losses` gives the losses of a batch, of which it is told the numbers of the rows; their sum is
    made small.
    """
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": course.decay},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=course.rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, course.rate, course.steps, pct_start=0.1, cycle_momentum=False
    )
    model.train()
    began, seen = time.monotonic(), []
    for step, batch in zip(range(course.steps), _batches(rows, course), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=course.half):
            found = losses(batch)
        optimiser.zero_grad(set_to_none=True)
        sum(found[1:], found[0]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        seen.append([float(part.detach()) for part in found])
        if (step + 1) % 100 == 0:
            spent = time.monotonic() - began
            parts = "  ".join(f"{part:.4f}" for part in np.mean(seen[-100:], 0))
            print(f"step {step + 1:6d}  losses {parts}  {spent:.0f} s", flush=True)
    model.eval()


def _batches(rows: int, course: Course) -> Iterator[Tensor]:
    """Numbers of rows, in a new order each time all have come."""
    dice = torch.Generator().manual_seed(course.seed)
    while True:
        order = torch.randperm(rows, generator=dice)
        for batch in order.split(course.batch):
            if len(batch) == course.batch:
                yield batch.sort().values


def pictures(pixels: np.ndarray, rows: Tensor) -> Tensor:
    """Rows of uint8 `[row *time h w 3]` as a model's input `[row 3 *time h w]` in [-2, 2]."""
    found = torch.from_numpy(pixels[rows.numpy()]).float()
    return ((found / 255 - 0.5) / 0.25).movedim(-1, 1)


def remember(lstm: nn.LSTM) -> None:
    """Open the forget gates, so that what came first is not lost before anything is learnt."""
    for name, bias in lstm.named_parameters():
        if name.startswith("bias_ih"):
            with torch.no_grad():
                bias[lstm.hidden_size : 2 * lstm.hidden_size] = 2.0


def save_folder(
    folder: Path, model: nn.Module, manifest: dict[str, Any], **lists: Sequence[str]
) -> None:
    """Write a model folder: half-precision weights, `mmcam.json`, word lists and labels."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: value.half().contiguous()
        for key, value in model.state_dict().items()
        if value.is_floating_point()
    }
    save_file(state, folder / "weights.safetensors")
    (folder / "weights.safetensors").chmod(0o644)  # others may read it, as any file
    if "vocabulary" in lists:
        words = json.dumps([*lists["vocabulary"]], indent=1)
        (folder / "vocab.json").write_text(words + "\n")
        manifest = {**manifest, "vocabulary": "vocab.json"}
    if "labels" in lists:
        (folder / "labels.txt").write_text("\n".join(lists["labels"]) + "\n")
        manifest = {**manifest, "labels": "labels.txt"}
    manifest = {"schema_version": 1, **manifest, "weights": "weights.safetensors"}
    (folder / "mmcam.json").write_text(json.dumps(manifest, indent=2) + "\n")
