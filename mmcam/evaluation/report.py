"""The summary of a run: `summary.json`, tables for the screen, and plots (`mmcam[evaluate]`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcam.errors import InputError, MissingExtra
from mmcam.evaluation.shards import SUMMARY, Folder
from mmcam.evaluation.statistics import Totals
from mmcam.media.images import replacing

if TYPE_CHECKING:
    from rich.table import Table


def summarize(folder: str | Path, *, plots: bool = False) -> dict[str, Any]:
    """Make `summary.json` of a run's folder again, from its shards; and plots, if asked for.

    Returns:
        What the file holds.

    Raises:
        InputError: the folder holds no shard, or a broken one.
        OutputError: something cannot be written.
        MissingExtra: pyarrow or, for plots, matplotlib is not installed.
    """
    if plots:
        check_plots()
    where, totals = Folder(folder), Totals()
    if not where.shards:
        raise InputError(f"{folder} holds no rows of a run; name the folder of mmcam evaluate")
    for path, table in zip(where.shards, where.tables(), strict=True):
        try:
            totals.add(table)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is no shard of mmcam evaluate ({type(error).__name__}: {error}); remove it"
            ) from error
    facts = totals.facts()
    where.write_json(SUMMARY, facts)
    if plots:
        draw_plots(where.path, facts)
    return facts


def check_plots() -> None:
    """That plots can be drawn.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401 - whether it is there is all that is asked
    except ImportError as error:
        raise MissingExtra("plots need matplotlib; pip install 'mmcam[evaluate]'") from error


def label_of(row: dict[str, Any], rows: Iterable[dict[str, Any]]) -> str:
    """What a series is called among others: its layer and kind are named where they differ."""
    others = list(rows)
    layers = {o["layer"] for o in others if o["method"] == row["method"]}
    kinds = {o["kind"] for o in others}
    name = f"{row['method']} at {row['layer']}" if len(layers) > 1 else str(row["method"])
    return f"{name}, {row['kind']}" if len(kinds) > 1 else name


def tables(facts: dict[str, Any]) -> list[Table]:
    """The summary for the screen: figures, and how often one method is better than another."""
    from rich.table import Table

    judged = facts["metrics"]
    title = f"{facts['items']} items" + (f", {facts['failed']} failed" if facts["failed"] else "")
    figures = Table("metric", "map", "mean", "95 %", "n", title=title)
    known = {row["name"] for row in judged if row["n"]}
    for row in judged:
        never = row["name"] not in known and row["metric"] != "win"
        if row["n"] or never:  # words have numbers that their sentence has not
            arrow = "up" if row["higher_is_better"] else "down"
            figures.add_row(
                f"{row['name']} ({arrow})",
                label_of(row, judged),
                _number(row["mean"]),
                f"{_number(row.get('low'))} .. {_number(row.get('high'))}",
                str(row["n"]),
            )
    made = [figures]
    if facts["pairs"]:
        wins = Table("metric", "map", "is better than", "in", "95 %", "ties", title="Win rates")
        shown: set[Any] = set()
        for row in facts["pairs"]:
            other = {**row, "method": row["other"], "layer": row["other_layer"]}
            ends = [(r["name"], r["kind"], r["method"], r["layer"]) for r in (row, other)]
            if frozenset(ends) in shown:  # the other way round says nothing new
                continue
            shown.add(frozenset(ends))
            wins.add_row(
                row["name"],
                label_of(row, facts["pairs"]),
                label_of(other, facts["pairs"]),
                f"{row['win_rate']:.3f}",
                f"{row['low']:.3f} .. {row['high']:.3f}",
                f"{row['ties']:.3f}",
            )
        made.append(wins)
    return made


def notes(facts: dict[str, Any]) -> Sequence[str]:
    """What else there is to say: why items failed, and why numbers are missing."""
    failed = [f"{times} failed: {error}" for error, times in facts["errors"].items()]
    missing = [
        f"{metric}: {times} without a number: {reason}"
        for metric, reasons in facts["missing"].items()
        for reason, times in reasons.items()
    ]
    return [*failed, *missing]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def draw_plots(folder: Path, facts: dict[str, Any]) -> list[Path]:
    """A picture of each metric's means, and of each metric's mean curves.

    Raises:
        OutputError: one cannot be written.
    """
    made = []
    for name in dict.fromkeys(row["name"] for row in facts["metrics"]):
        rows = [r for r in facts["metrics"] if r["name"] == name and r["mean"] is not None]
        if rows:
            made.append(_means(folder / f"plot-{_slug(name)}.png", name, rows))
    for name in dict.fromkeys(row["name"] for row in facts["curves"]):
        rows = [row for row in facts["curves"] if row["name"] == name]
        made.append(_curves(folder / f"plot-{_slug(name)}-curve.png", name, rows))
    return made


def _slug(name: str) -> str:
    return re.sub(r"[^\w.+]+", "-", name).strip("-")


def _means(path: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        low = row["mean"] if row["low"] is None else row["low"]
        high = row["mean"] if row["high"] is None else row["high"]
        reach = [[max(row["mean"] - low, 0)], [max(high - row["mean"], 0)]]
        axes.errorbar(row["mean"], place, xerr=reach, fmt="o", color="C0", capsize=4)
    axes.set_yticks(range(len(rows)), [f"{label_of(row, rows)} (n={row['n']})" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    better = "higher" if rows[0]["higher_is_better"] else "lower"
    axes.set_xlabel(f"{name}: mean and 95 % interval, {better} is better")
    axes.grid(axis="x", alpha=0.3)
    return _written(path, figure)


def _curves(path: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        points = row["points"]
        steps = range(len(points))
        x = [step / max(len(points) - 1, 1) for step in steps]
        mean = [float("nan") if p["mean"] is None else p["mean"] for p in points]
        low = [m if p.get("low") is None else p["low"] for m, p in zip(mean, points, strict=True)]
        high = [
            m if p.get("high") is None else p["high"] for m, p in zip(mean, points, strict=True)
        ]
        (line,) = axes.plot(x, mean, label=label_of(row, rows))
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2)
    drawn = name == "model-randomization"
    axes.set_xlabel("share of the layers drawn anew" if drawn else "share of the pixels")
    axes.set_ylabel(f"{name}: mean and 95 % interval")
    axes.legend()
    return _written(path, figure)


def _written(path: Path, figure: Any) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path
