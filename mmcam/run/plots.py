"""The summary as pictures, one a metric, with intervals. Needs matplotlib (`mmcam[evaluate]`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmcam.media.images import replacing
from mmcam.run.summary import label_of


def draw(folder: Path, facts: dict[str, Any]) -> list[Path]:
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
