"""Do maps lie on the true evidence for a word, an answer or an action? Every method, every task.

    python examples/leaderboard.py --scenes 500

The scenes have test seeds of `mmcam.shapes`, so the pixels that are evidence for each word, answer
and action are known. The models are the packaged ones. The explained words, answers and actions are
the true ones; captions are teacher-forced. The metrics of a map are:

- inside: the share of the map's positive values that lies on the evidence.
- pointing: whether the map's maximum lies on the evidence, with no tolerance.
- in/out: the mean inside divided by the mean outside; the median over maps.
- rank: the rank correlation of the map with the mask.

For two-tone things, the maps of both colours are computed. `own half` is the share of the map on
the thing that lies on the half of the explained colour. `each` is how often that share is above one
half for both colours. `shift` is how often each map has a larger share on its own half than the
other map has there. For actions, `actor` is how often the actor has more of the map than any other
object.

The baselines do not depend on the model: uniform (which points at random), centre, edges and
random. The methods `activation` and `eigencam` do not depend on the target. Methods that re-score
changed inputs need a forward per channel or patch, and are measured on the first `--rescored`
scenes only.
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
"""The compared layers, the earliest first."""

Mask = np.ndarray
Heatmap = np.ndarray
Key = tuple[str, str]
"""A task and the name of a row: a method or baseline, with the layer if there are several."""


@dataclass
class Row:
    """The measured values of one method on one task, map by map."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, **measured: float) -> None:
        for name, value in measured.items():
            self.values[name].append(value)

    def mean(self, name: str) -> float:
        """The mean over maps, or the median of ratios, which may be infinite."""
        values = self.values[name]
        if not values:
            return float("nan")
        return float(np.median(values) if name == "in/out" else np.mean(values))


Board = dict[Key, Row]


def measure(heatmap: Heatmap, mask: Mask, points: float | None = None) -> dict[str, float]:
    """The metrics of a map against its evidence; `points` replaces the pointing game, if given."""
    inside, outside = in_out_means(heatmap, mask)
    ratio = inside / outside if outside else (np.inf if inside else np.nan)
    hit = float(pointing_game(heatmap, mask, 0)) if points is None else points
    rank = spearman(heatmap, mask.astype(np.float64))
    measured = {"inside": energy_inside(heatmap, mask), "pointing": hit, "rank": rank}
    return measured if np.isnan(ratio) else {**measured, "in/out": ratio}


def baselines(pixels: np.ndarray, seed: int) -> dict[str, Heatmap]:
    """Maps that depend on the picture or clip at most."""
    height, width = pixels.shape[-3:-1]
    down, across = np.mgrid[:height, :width] + 0.5
    distances = ((down - height / 2) / height) ** 2 + ((across - width / 2) / width) ** 2
    grey = pixels.astype(np.float64).mean(-1)
    slopes = np.gradient(grey, axis=(-2, -1))
    noise = np.random.default_rng(seed).random(pixels.shape[:-1])
    ones = np.ones(pixels.shape[:-1])
    return {"uniform": ones, "centre": ones * np.exp(-8 * distances), "edges": np.hypot(*slopes),
            "random": noise}  # fmt: skip


def measure_baselines(board: Board, task: str, pixels: np.ndarray, mask: Mask, seed: int) -> None:
    for name, heatmap in baselines(pixels, seed).items():
        points = chance(heatmap, mask) if name == "uniform" else None
        board[task, name].add(**measure(heatmap, mask, points))


def explained_rows(
    model: mmcam.types.Adapter,
    pixels: np.ndarray,
    task: object,
    methods: Sequence[str],
    layers: Sequence[str] | None,
) -> Iterator[tuple[str, mmcam.Explanation, Heatmap]]:
    """All maps of a task, each with the name of its row."""
    explanations = mmcam.explain(model, pixels, task, method=list(methods), layers=layers)
    for explanation in explanations:
        method, layer = explanation.method, explanation.layer
        yield f"{method} at {layer}" if layers else method, explanation, explanation.heatmap()


def measure_caption(
    board: Board, model: mmcam.types.Adapter, scene: shapes.Scene, methods: Sequence[str],
    layers: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Measure the maps of the words of a scene's caption that have a mask."""
    caption = shapes.caption(scene)
    words = {word.position: word for word in caption.words if word.mask is not None}
    task = mmcam.Caption(caption.text, words=list(words))
    names = {position: TASKS[word.kind == "background"] for position, word in words.items()}
    for row, explanation, heatmap in explained_rows(model, scene.pixels, task, methods, layers):
        position = explanation.target.position
        if position is not None:
            board[names[position], row].add(**measure(heatmap, words[position].mask))
    for position, word in words.items():
        measure_baselines(board, names[position], scene.pixels, word.mask, scene.seed)


def measure_answers(
    board: Board, model: mmcam.types.Adapter, scene: shapes.Scene, methods: Sequence[str],
    layers: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Measure the maps of the right answers to a scene's questions that have a mask."""
    for question in shapes.questions(scene):
        masks = {answer: mask for answer, mask in question.answers.items() if mask is not None}
        name = TASKS[3] if len(masks) == 2 else TASKS[2]
        if not masks:
            continue
        halves: dict[str, dict[str, Heatmap]] = defaultdict(dict)
        task = mmcam.Answers(question.text, list(masks))
        for row, explanation, heatmap in explained_rows(model, scene.pixels, task, methods, layers):
            board[name, row].add(**measure(heatmap, masks[explanation.label]))
            halves[row][explanation.label] = heatmap
        for mask in masks.values():
            measure_baselines(board, name, scene.pixels, mask, scene.seed)
            if len(masks) == 2:
                for row, heatmap in baselines(scene.pixels, scene.seed).items():
                    halves[row][f"{len(halves[row])}"] = heatmap
        if len(masks) == 2:
            for row, heatmaps in halves.items():
                values = measure_halves(list(heatmaps.values()), list(masks.values()))
                board[name, row].add(**values)


def measure_halves(heatmaps: Sequence[Heatmap], masks: Sequence[Mask]) -> dict[str, float]:
    """The share of each of two maps on its half of a two-tone thing, of what lies on the thing."""
    shares = []
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        whole = float(heatmap[masks[0] | masks[1]].sum())
        shares.append(float(heatmap[mask].sum()) / whole if whole else 0.0)
    # The first map has a larger share on its half than the second map if the sum exceeds 1.
    own = {"own half": float(np.mean(shares)), "first half": shares[0], "second half": shares[1]}
    return {**own, "each": float(min(shares) > 0.5), "shift": float(sum(shares) > 1 + 1e-6)}


def measure_action(
    board: Board, model: mmcam.types.Adapter, clip: shapes.ActionClip, methods: Sequence[str],
    layers: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Measure the maps of a clip's action against the actor's masks and the other objects."""
    masks = [clip_object.masks for clip_object in clip.objects]
    task = mmcam.Actions([clip.action])
    rows = explained_rows(model, clip.pixels, task, methods, layers)
    heatmaps = [(name, heatmap) for name, _, heatmap in rows]
    measure_baselines(board, TASKS[4], clip.pixels, masks[clip.actor], clip.seed)
    for name, heatmap in heatmaps:
        board[TASKS[4], name].add(**measure(heatmap, masks[clip.actor]))
    for name, heatmap in [*heatmaps, *baselines(clip.pixels, clip.seed).items()]:
        sums = [float(heatmap[mask].sum()) for mask in masks]
        others = [total for index, total in enumerate(sums) if index != clip.actor]
        board[TASKS[4], name].add(actor=float(sums[clip.actor] > max(others)))


def usable_methods(
    model: mmcam.types.Adapter, pixels: np.ndarray, task: object, methods: Sequence[str]
) -> list[str]:
    """The methods that can explain this model."""
    usable = []
    for method in methods:
        try:
            if method not in RESCORED:
                mmcam.explain(model, pixels, task, method=method)
            usable.append(method)
        except MmcamError:
            continue
    return usable


@dataclass(frozen=True)
class Plan:
    """What to measure: models, methods and numbers of scenes."""

    scenes: int
    rescored: int
    layered: int
    first: int
    models: Sequence[str]
    methods: Sequence[str]


def run(plan: Plan, console: Console) -> tuple[Board, Board]:
    """Measure all methods at the default layers, and some at several layers on fewer scenes."""
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
    methods = {
        name: usable_methods(model, *examples[name], plan.methods) for name, model in models.items()
    }
    layered_methods = {
        name: [m for m in ("gradcam", "gradcam++", "hirescam", "activation") if m in methods[name]]
        for name in models
    }
    for number, seed in enumerate(track(seeds, "scenes", disable=not console.is_terminal)):
        scene, clip = shapes.scene(seed), shapes.clip(seed)
        for name, model in models.items():
            selected = [m for m in methods[name] if number < plan.rescored or m not in RESCORED]
            sample = clip if name == "action" else scene
            _MEASURES[name](board, model, sample, selected)
            if number < plan.layered and layered_methods[name]:
                _MEASURES[name](layered, model, sample, layered_methods[name], LAYERS[name])
    return board, layered


_MEASURES = {"captioner": measure_caption, "vqa": measure_answers, "action": measure_action}
_TASKS = {"captioner": TASKS[:2], "vqa": TASKS[2:4], "action": TASKS[4:]}

COLUMNS = {
    TASKS[0]: ("inside", "pointing", "in/out", "rank"),
    TASKS[1]: ("inside", "pointing", "in/out", "rank"),
    TASKS[2]: ("inside", "pointing", "in/out", "rank"),
    TASKS[3]: ("inside", "pointing", "own half", "each", "shift"),
    TASKS[4]: ("inside", "pointing", "in/out", "rank", "actor"),
}


def cells(board: Board, task: str, name: str) -> list[str]:
    """A row's numbers on one task, in the order of `COLUMNS`; dashes if there are none."""
    row = board.get((task, name))
    if row is None or not row.values["inside"]:
        return ["-"] * len(COLUMNS[task])
    return [_short(row.mean(column)) for column in COLUMNS[task]]


def _short(value: float) -> str:
    if not np.isfinite(value):
        return "inf" if value > 0 else "-"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def markdown(board: Board, tasks: Sequence[str]) -> str:
    """A Markdown table: the methods by decreasing `inside`, then the baselines."""
    names = list(dict.fromkeys(name for task, name in board if task in tasks))
    ranked = [name for name in names if name not in BASELINES]
    ranked.sort(key=lambda name: -board[tasks[0], name].mean("inside"))
    rows = [*ranked, *(n for n in BASELINES if n in names)]
    headings = [column if index else f"{task}: {column}"
                for task in tasks for index, column in enumerate(COLUMNS[task])]  # fmt: skip
    lines = [f"| map | {' | '.join(headings)} |", "|---" * (len(headings) + 1) + "|"]
    for name in rows:
        title = f"*{name}*" if name in BASELINES else f"`{name}`"
        numbers = [number for task in tasks for number in cells(board, task, name)]
        lines.append(f"| {title} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def show(board: Board, console: Console) -> None:
    """Print one table for each task."""
    for task in TASKS:
        names = [name for key, name in board if key == task and board[key, name].values["inside"]]
        if not names:
            continue
        maps = max(len(board[task, name].values["inside"]) for name in names)
        table = Table("map", *COLUMNS[task], title=f"{task}: {maps} maps per method")
        for name in sorted(names, key=lambda name: -board[task, name].mean("inside")):
            table.add_row(name, *cells(board, task, name))
        console.print(table)


def main() -> None:
    """Measure, print tables and Markdown, and write all numbers as JSON if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=500, help="number of scenes and clips")
    parser.add_argument(
        "--rescored", type=int, default=50, help="of these, for methods that re-score"
    )
    parser.add_argument("--layered", type=int, default=50, help="of these, for several layers")
    parser.add_argument("--first", type=int, default=0, help="the first test seed")
    parser.add_argument("--model", nargs="+", choices=_MEASURES, default=list(_MEASURES))
    parser.add_argument("--method", nargs="+", default=list(mmcam.METHODS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    args = parser.parse_args()
    if args.scenes < 1:
        sys.exit("--scenes must be 1 or more")
    console, start = Console(), time.monotonic()
    rescored = min(args.rescored, args.scenes)
    plan = Plan(args.scenes, rescored, args.layered, args.first, args.model, args.method)
    board, layered = run(plan, console)
    show(board, console)
    for tables in (board, layered):
        for model in plan.models:
            print(markdown(tables, _TASKS[model]), end="\n\n")
    print(f"{plan.scenes} scenes and clips, {time.monotonic() - start:.0f} s")
    if args.json:
        content = {
            title: [
                {"task": task, "map": name, "count": len(row.values["inside"]),
                 **{column: row.mean(column) for column in row.values}}
                for (task, name), row in tables.items()
            ]
            for title, tables in (("usual layer", board), ("by layer", layered))
        }  # fmt: skip
        args.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
