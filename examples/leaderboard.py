"""Does a map lie on what the word, the answer or the action rests on? Every method, every task.

    python examples/leaderboard.py --scenes 500

The scenes are those of test seeds of `mmcam.shapes`, so every pixel that a word, an answer or an
action must rest on is known; the models are the packaged ones. Each word, answer and action is the
true one, put into the model's mouth. For every map:

- inside: the share of the map's positive values that lies on the right pixels.
- pointing: whether the map is highest on them, with no tolerance.
- in/out: the mean inside over the mean outside; of all maps the median.
- rank: the rank correlation of the map with the mask.

Of a two-tone thing either colour is forced: `own half` is the share of what lies on the thing that
lies on the half of the forced colour, `each` how often it is more than one half for either colour,
and `shift` how often each map has more of itself on its own half than the other map has there. For
actions, `actor` is how often the acting object holds more of the map than any other object does.

Beside the methods stand maps that know nothing of the model: uniform (which points at random),
centre, edges and random; `activation` and `eigencam` know nothing of what is asked. Methods that
score changed inputs cost a forward a channel or a patch and are judged on `--rescored` scenes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mmcam
from mmcam import shapes
from mmcam.demo import packaged
from mmcam.errors import MmcamError
from mmcam.evaluators.densecap import in_out_means
from mmcam.evaluators.maps import spearman
from mmcam.evaluators.pointing import chance, energy_inside, pointing_game

BASELINES = ("uniform", "centre", "edges", "random")
RESCORED = ("scorecam", "ablationcam", "occlusion")
TASKS = ("words of things", "words of the background", "answers", "two-tone answers", "actions")
LAYERS = {
    "captioner": ["cnn.net.trunk.1", "cnn.net.trunk.2", "cnn.net.trunk.3", "cnn.net.trunk.4",
                  "cnn.net.mix"],
    "vqa": ["cnn.net.trunk.1", "cnn.net.trunk.2", "cnn.net.trunk.3", "cnn.net.trunk.4",
            "cnn.net.mix"],
    "action": ["relu1", "relu2", "relu3b", "relu4b", "relu5b"],
}  # fmt: skip
"""The layers that are compared, the earliest first."""

Mask = np.ndarray
Heat = np.ndarray
Key = tuple[str, str]
"""A task, and the name of a row: a method or a baseline, and the layer where several are asked."""


@dataclass
class Row:
    """All that was measured of one method on one task, map by map."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, **measured: float) -> None:
        for name, value in measured.items():
            self.values[name].append(value)

    def mean(self, name: str) -> float:
        """The mean over maps; of ratios, which may be infinite, the median."""
        found = self.values[name]
        if not found:
            return float("nan")
        return float(np.median(found) if name == "in/out" else np.mean(found))


Board = dict[Key, Row]


def judged(heat: Heat, mask: Mask, points: float | None = None) -> dict[str, float]:
    """One map against the pixels it should lie on; `points`, if given, says whether it hits."""
    inside, outside = in_out_means(heat, mask)
    ratio = inside / outside if outside else (np.inf if inside else np.nan)
    hit = float(pointing_game(heat, mask, 0)) if points is None else points
    rank = spearman(heat, mask.astype(np.float64))
    measured = {"inside": energy_inside(heat, mask), "pointing": hit, "rank": rank}
    return measured if np.isnan(ratio) else {**measured, "in/out": ratio}


def baselines(pixels: np.ndarray, seed: int) -> dict[str, Heat]:
    """Maps that know the picture or clip at most."""
    height, width = pixels.shape[-3:-1]
    down, across = np.mgrid[:height, :width] + 0.5
    away = ((down - height / 2) / height) ** 2 + ((across - width / 2) / width) ** 2
    grey = pixels.astype(np.float64).mean(-1)
    slopes = np.gradient(grey, axis=(-2, -1))
    noise = np.random.default_rng(seed).random(pixels.shape[:-1])
    one = np.ones(pixels.shape[:-1])
    return {"uniform": one, "centre": one * np.exp(-8 * away), "edges": np.hypot(*slopes),
            "random": noise}  # fmt: skip


def judge_baselines(board: Board, task: str, pixels: np.ndarray, mask: Mask, seed: int) -> None:
    for name, heat in baselines(pixels, seed).items():
        points = chance(heat, mask) if name == "uniform" else None
        board[task, name].add(**judged(heat, mask, points))


def each(
    model: mmcam.types.Adapter,
    pixels: np.ndarray,
    task: object,
    methods: Sequence[str],
    layers: Sequence[str] | None,
) -> Iterator[tuple[str, mmcam.Explanation, Heat]]:
    """Every map of a task, by the name of its row."""
    for found in mmcam.explain(model, pixels, task, method=list(methods), layers=layers):
        name = f"{found.method} at {found.layer}" if layers else found.method
        yield name, found, found.heatmap()


def judge_caption(
    board: Board, model: mmcam.types.Adapter, scene: shapes.Scene, methods: Sequence[str],
    layers: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """The words of a scene's caption that say something of what is seen."""
    told = shapes.caption(scene)
    masks = {word.position: word for word in told.words if word.mask is not None}
    asked = mmcam.Caption(told.text, words=list(masks))
    task = {at: TASKS[word.kind == "background"] for at, word in masks.items()}
    for name, found, heat in each(model, scene.pixels, asked, methods, layers):
        position = found.target.position
        if position is not None:
            board[task[position], name].add(**judged(heat, masks[position].mask))
    for position, word in masks.items():
        judge_baselines(board, task[position], scene.pixels, word.mask, scene.seed)


def judge_answers(
    board: Board, model: mmcam.types.Adapter, scene: shapes.Scene, methods: Sequence[str],
    layers: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """The right answers of a scene's questions that rest on something."""
    for ask in shapes.questions(scene):
        masks = {answer: mask for answer, mask in ask.answers.items() if mask is not None}
        task = TASKS[3] if len(masks) == 2 else TASKS[2]
        if not masks:
            continue
        halves: dict[str, dict[str, Heat]] = defaultdict(dict)
        asked = mmcam.Answers(ask.text, list(masks))
        for name, found, heat in each(model, scene.pixels, asked, methods, layers):
            board[task, name].add(**judged(heat, masks[found.label]))
            halves[name][found.label] = heat
        for mask in masks.values():
            judge_baselines(board, task, scene.pixels, mask, scene.seed)
            if len(masks) == 2:
                for name, heat in baselines(scene.pixels, scene.seed).items():
                    halves[name][f"{len(halves[name])}"] = heat
        if len(masks) == 2:
            for name, heats in halves.items():
                board[task, name].add(**_halves(list(heats.values()), list(masks.values())))


def _halves(heats: Sequence[Heat], masks: Sequence[Mask]) -> dict[str, float]:
    """Two maps of a two-tone thing: how much of each, of what lies on the thing, is on its half."""
    shares = []
    for heat, own in zip(heats, masks, strict=True):
        whole = float(heat[masks[0] | masks[1]].sum())
        shares.append(float(heat[own].sum()) / whole if whole else 0.0)
    # The first map has more on its half than the second map has there just if the sum is above 1.
    own = {"own half": float(np.mean(shares)), "first half": shares[0], "second half": shares[1]}
    return {**own, "each": float(min(shares) > 0.5), "shift": float(sum(shares) > 1 + 1e-6)}


def judge_action(
    board: Board, model: mmcam.types.Adapter, clip: shapes.ActionClip, methods: Sequence[str],
    layers: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """What acts in a clip, frame by frame, and against the other objects."""
    masks = [mover.masks for mover in clip.objects]
    asked = mmcam.Actions([clip.action])
    heats = [(name, heat) for name, _, heat in each(model, clip.pixels, asked, methods, layers)]
    judge_baselines(board, TASKS[4], clip.pixels, masks[clip.actor], clip.seed)
    for name, heat in heats:
        board[TASKS[4], name].add(**judged(heat, masks[clip.actor]))
    for name, heat in [*heats, *baselines(clip.pixels, clip.seed).items()]:
        mass = [float(heat[mask].sum()) for mask in masks]
        most = mass[clip.actor] > max(m for at, m in enumerate(mass) if at != clip.actor)
        board[TASKS[4], name].add(actor=float(most))


def usable(
    model: mmcam.types.Adapter, pixels: np.ndarray, task: object, methods: Sequence[str]
) -> list[str]:
    """The methods that this model can be explained by."""
    found = []
    for method in methods:
        try:
            if method not in RESCORED:
                mmcam.explain(model, pixels, task, method=method)
            found.append(method)
        except MmcamError:
            continue
    return found


@dataclass(frozen=True)
class Plan:
    """What is judged: models, methods by task, and how many scenes."""

    scenes: int
    rescored: int
    layered: int
    first: int
    models: Sequence[str]
    methods: Sequence[str]


def run(plan: Plan, console: Console) -> tuple[Board, Board]:
    """All methods at the usual layers; and three of them at several layers, on fewer scenes."""
    board: Board = defaultdict(Row)
    layered: Board = defaultdict(Row)
    models = {name: mmcam.load(packaged(name)) for name in plan.models}
    seeds = shapes.SPLITS["test"][plan.first : plan.first + plan.scenes]
    first, clip = shapes.scene(seeds[0]), shapes.clip(seeds[0])
    examples: dict[str, tuple[np.ndarray, object]] = {
        "captioner": (first.pixels, mmcam.Caption(shapes.caption(first).text, words=[1])),
        "vqa": (first.pixels, mmcam.Answers("is there any star ?", ["yes"])),
        "action": (clip.pixels, mmcam.Actions([clip.action])),
    }
    methods = {name: usable(model, *examples[name], plan.methods) for name, model in models.items()}
    layers = {
        name: [m for m in ("gradcam", "gradcam++", "hirescam", "activation") if m in methods[name]]
        for name in models
    }
    for number, seed in enumerate(track(seeds, "scenes", disable=not console.is_terminal)):
        scene, clip = shapes.scene(seed), shapes.clip(seed)
        for name, model in models.items():
            few = [m for m in methods[name] if number < plan.rescored or m not in RESCORED]
            world = clip if name == "action" else scene
            _JUDGES[name](board, model, world, few)
            if number < plan.layered and layers[name]:
                _JUDGES[name](layered, model, world, layers[name], LAYERS[name])
    return board, layered


_JUDGES = {"captioner": judge_caption, "vqa": judge_answers, "action": judge_action}
_TASKS = {"captioner": TASKS[:2], "vqa": TASKS[2:4], "action": TASKS[4:]}

COLUMNS = {
    TASKS[0]: ("inside", "pointing", "in/out", "rank"),
    TASKS[1]: ("inside", "pointing", "in/out", "rank"),
    TASKS[2]: ("inside", "pointing", "in/out", "rank"),
    TASKS[3]: ("inside", "pointing", "own half", "each", "shift"),
    TASKS[4]: ("inside", "pointing", "in/out", "rank", "actor"),
}


def cells(board: Board, task: str, name: str) -> list[str]:
    """A row's numbers on one task, in the order of `COLUMNS`; dashes where it has none."""
    row = board.get((task, name))
    if row is None or not row.values["inside"]:
        return ["-"] * len(COLUMNS[task])
    return [_short(row.mean(column)) for column in COLUMNS[task]]


def _short(value: float) -> str:
    if not np.isfinite(value):
        return "inf" if value > 0 else "-"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def markdown(board: Board, tasks: Sequence[str]) -> str:
    """A table for the README: a row for each method, the most mass inside first, then baselines."""
    names = list(dict.fromkeys(name for task, name in board if task in tasks))
    ranked = [name for name in names if name not in BASELINES]
    ranked.sort(key=lambda name: -board[tasks[0], name].mean("inside"))
    rows = [*ranked, *(n for n in BASELINES if n in names)]
    heads = [f"{task}: {column}" if not at else column
             for task in tasks for at, column in enumerate(COLUMNS[task])]  # fmt: skip
    lines = [f"| map | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in rows:
        title = f"*{name}*" if name in BASELINES else f"`{name}`"
        found = [number for task in tasks for number in cells(board, task, name)]
        lines.append(f"| {title} | {' | '.join(found)} |")
    return "\n".join(lines)


def show(board: Board, console: Console) -> None:
    """The same as a table a task."""
    for task in TASKS:
        names = [name for at, name in board if at == task and board[at, name].values["inside"]]
        if not names:
            continue
        maps = max(len(board[task, name].values["inside"]) for name in names)
        table = Table("map", *COLUMNS[task], title=f"{task}: {maps} maps a method")
        for name in sorted(names, key=lambda name: -board[task, name].mean("inside")):
            table.add_row(name, *cells(board, task, name))
        console.print(table)


def main() -> None:
    """Judge, print tables and Markdown, and write all numbers as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=500, help="how many scenes, and clips")
    parser.add_argument("--rescored", type=int, default=50, help="of these, for what re-scores")
    parser.add_argument("--layered", type=int, default=50, help="of these, for other layers")
    parser.add_argument("--first", type=int, default=0, help="the first test seed")
    parser.add_argument("--model", nargs="+", choices=_JUDGES, default=list(_JUDGES))
    parser.add_argument("--method", nargs="+", default=list(mmcam.METHODS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    asked = parser.parse_args()
    if asked.scenes < 1:
        sys.exit("--scenes must be 1 or more")
    console, began = Console(), time.monotonic()
    few = min(asked.rescored, asked.scenes)
    plan = Plan(asked.scenes, few, asked.layered, asked.first, asked.model, asked.method)
    board, layered = run(plan, console)
    show(board, console)
    for tables in (board, layered):
        for model in plan.models:
            print(markdown(tables, _TASKS[model]), end="\n\n")
    print(f"{plan.scenes} scenes and clips, {time.monotonic() - began:.0f} s")
    if asked.json:
        content = {
            title: [
                {"task": task, "map": name, "count": len(row.values["inside"]),
                 **{column: row.mean(column) for column in row.values}}
                for (task, name), row in tables.items()
            ]
            for title, tables in (("usual layer", board), ("by layer", layered))
        }  # fmt: skip
        asked.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
