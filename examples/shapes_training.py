"""Shared code of the trainings in `train_shapes.py`: cached datasets and the training loop."""

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
"""The number of samples that a worker makes at a time."""


@dataclass(frozen=True)
class Dataset:
    """Scenes or clips: their pixels, and the labels of each."""

    pixels: np.ndarray
    labels: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.pixels)


def make_captioned_scene(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """A picture `[96 96 3]` and its caption."""
    scene = shapes.scene(seed)
    return scene.pixels, {"caption": shapes.caption(scene).text}


VARIANTS = 4
"""The number of variants of each scene's questions; new questions are cheaper than new scenes."""


def make_vqa_scene(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """A picture `[96 96 3]`, several variants of questions with all right answers, and its things.

    Each thing has its shape and colours, and its centre (x, y), scaled to [-1, 1].
    """
    scene = shapes.scene(seed)
    questions = [
        question for variant in range(VARIANTS) for question in shapes.questions(scene, variant)
    ]
    answers = {question.text: sorted(question.answers) for question in questions}
    side = len(scene.pixels)
    things = [
        [
            [thing.shape, *thing.colours],
            *(round(2 * length / side - 1, 3) for length in thing.centre),
        ]
        for thing in scene.objects
    ]
    return scene.pixels, {"questions": list(answers.items()), "things": things}


WINDOW = 64
"""The side of the window around a thing, in pixels: enough for crops of 48 with random offsets."""


def make_single_thing(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """One thing of a scene in the middle of a window `[64 64 3]`, and its attributes."""
    scene = shapes.scene(seed)
    thing = scene.objects[seed % len(scene.objects)]
    half = WINDOW // 2
    padded = np.pad(scene.pixels, ((half, half), (half, half), (0, 0)), mode="edge")
    x, y = (round(length) for length in thing.centre)
    place = thing.parts[0].place
    look = [thing.shape, thing.size, place or thing.texture, thing.colours[0], thing.colours[-1]]
    return padded[y : y + WINDOW, x : x + WINDOW], {"look": look}


def make_action_clip(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """A clip `[16 64 64 3]`, its action, and the initial position (x, y) of the actor."""
    clip = shapes.clip(seed)
    rows, columns = clip.objects[clip.actor].masks[0].nonzero()
    place = [round(float(columns.mean())), round(float(rows.mean()))]
    return clip.pixels, {"action": clip.action, "place": place}


SampleMaker = Callable[[int], tuple[np.ndarray, dict[str, Any]]]
"""Seed -> the pixels and labels of one sample."""


def _make_chunk(job: tuple[SampleMaker, Sequence[int]]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    make_sample, seeds = job
    samples = [make_sample(seed) for seed in seeds]
    return np.stack([pixels for pixels, _ in samples]), [labels for _, labels in samples]


def load_dataset(
    make_sample: SampleMaker, split: str, count: int, cache: Path, workers: int = 2
) -> Dataset:
    """The first `count` samples of a split, from the cache, or made by `workers` processes."""
    pixels_file = cache / f"{make_sample.__name__}-{split}-{count}.npy"
    labels_file = pixels_file.with_suffix(".json")
    if not labels_file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        start_time, seeds = time.monotonic(), shapes.SPLITS[split][:count]
        shape = (count, *make_sample(seeds[0])[0].shape)
        pixels = open_memmap(pixels_file, mode="w+", dtype=np.uint8, shape=shape)
        labels: list[dict[str, Any]] = []
        chunks = [(make_sample, seeds[start : start + CHUNK]) for start in range(0, count, CHUNK)]
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for chunk_pixels, chunk_labels in pool.imap(_make_chunk, chunks):
                pixels[len(labels) : len(labels) + len(chunk_pixels)] = chunk_pixels
                labels += chunk_labels
        pixels.flush()
        labels_file.write_text(json.dumps(labels))
        elapsed = time.monotonic() - start_time
        print(f"{count} samples of {split} made in {elapsed:.0f} s", flush=True)
    return Dataset(np.load(pixels_file, mmap_mode="r"), json.loads(labels_file.read_text()))


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training: seed, steps, batch size, and the maximum learning rate."""

    seed: int
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.02
    bfloat16: bool = True
    """Whether the forward runs under autocast to bfloat16."""


def train(
    model: nn.Module,
    losses: Callable[[Tensor], Sequence[Tensor]],
    rows: int,
    config: TrainingConfig,
) -> None:
    """Train by AdamW with a one-cycle learning rate.

    `losses` maps the row indices of a batch to its losses, whose sum is minimised.
    """
    optimiser = torch.optim.AdamW(
        [
            {
                "params": [p for p in model.parameters() if p.ndim > 1],
                "weight_decay": config.weight_decay,
            },
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, config.steps, pct_start=0.1, cycle_momentum=False
    )
    model.train()
    start_time, history = time.monotonic(), []
    for step, batch in zip(range(config.steps), _batches(rows, config), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            batch_losses = losses(batch)
        optimiser.zero_grad(set_to_none=True)
        sum(batch_losses[1:], batch_losses[0]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        history.append([float(loss.detach()) for loss in batch_losses])
        if (step + 1) % 100 == 0:
            elapsed = time.monotonic() - start_time
            means = "  ".join(f"{loss:.4f}" for loss in np.mean(history[-100:], 0))
            print(f"step {step + 1:6d}  losses {means}  {elapsed:.0f} s", flush=True)
    model.eval()


def _batches(rows: int, config: TrainingConfig) -> Iterator[Tensor]:
    """Batches of row indices without end, reshuffled in each epoch."""
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        order = torch.randperm(rows, generator=generator)
        for batch in order.split(config.batch):
            if len(batch) == config.batch:
                yield batch.sort().values


def to_input(pixels: np.ndarray, rows: Tensor) -> Tensor:
    """Rows of uint8 `[row *time h w 3]` as a model's input `[row 3 *time h w]` in [-2, 2]."""
    values = torch.from_numpy(pixels[rows.numpy()]).float()
    return ((values / 255 - 0.5) / 0.25).movedim(-1, 1)


def open_forget_gates(lstm: nn.LSTM) -> None:
    """Initialise the forget gates as open, so that early tokens persist from the first step."""
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
    (folder / "weights.safetensors").chmod(0o644)  # readable by all, as other files
    if "vocabulary" in lists:
        words = json.dumps([*lists["vocabulary"]], indent=1)
        (folder / "vocab.json").write_text(words + "\n")
        manifest = {**manifest, "vocabulary": "vocab.json"}
    if "labels" in lists:
        (folder / "labels.txt").write_text("\n".join(lists["labels"]) + "\n")
        manifest = {**manifest, "labels": "labels.txt"}
    manifest = {"schema_version": 1, **manifest, "weights": "weights.safetensors"}
    (folder / "mmcam.json").write_text(json.dumps(manifest, indent=2) + "\n")
