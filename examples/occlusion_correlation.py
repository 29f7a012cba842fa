"""Do maps of answers rank places as covering them does? (ICCV section 5.3, IJCV sections 5.3, 8.2.)

    python examples/occlusion_correlation.py --model my_vqa/ --photos images/ --pairs vqa.jsonl

`--pairs` has a line of JSON for each question: {"image": file name, "question": text}. The model's
own first answer is explained. Its occlusion map (`mmcam list methods`) is the reference: the drop
of the answer's score as one patch after the other is covered. Each method's map, on the picture's
pixels, is averaged over the cells of the occlusion map; the figure is Spearman's rank correlation
with it, its mean over the questions and a 95 % interval. Beside the methods stand the baselines:
the middle of the picture, a random map, and the mean activation, which knows nothing of the answer.

The papers have 0.60 for Grad-CAM and 0.42 for guided backpropagation, with VGG-16 on VQA.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mmcam
from mmcam.evaluators.human_attention import centre_map, random_map
from mmcam.evaluators.occlusion import occlusion_correlation
from mmcam.media import read_image

METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "guided-gradcam", "guided", "gradient")


def correlations(
    model: mmcam.types.Adapter, path: Path, question: str, methods: list[str], seed: int
) -> dict[str, float] | None:
    """Each map's correlation with the occlusion map of the model's own answer.

    None where covering any place changes the score alike, so that there is no order.
    """
    sample = replace(read_image(path), text=question)
    asked = [*methods, "activation", "occlusion"]
    maps = {e.method: e for e in mmcam.explain(model, sample, mmcam.Answers(), method=asked)}
    reference = maps["occlusion"].cam.numpy()
    if reference.min() == reference.max():
        return None
    size = sample.pixels.shape[:2]
    # What lies outside the model's crop is NaN in every map; the reference covers the crop.
    heat = {name: maps[name].heatmap() for name in (*methods, "activation")}
    heat |= {"centre": centre_map(size), "random": random_map(seed, size)}
    return {name: occlusion_correlation(values, reference) for name, values in heat.items()}


def main() -> None:
    """Correlate, print a table, and write every question as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a model of answers, as mmcam vqa takes it")
    parser.add_argument("--pairs", type=Path, required=True, help="a JSON line for each question")
    parser.add_argument("--photos", type=Path, required=True, help="the folder of photos")
    parser.add_argument("--method", nargs="+", default=list(METHODS))
    parser.add_argument("--limit", type=int, default=100, help="questions, spread over the file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every question there")
    settings = parser.parse_args()
    console, model = Console(), mmcam.load(settings.model)
    rows = [json.loads(line) for line in settings.pairs.read_text(encoding="utf-8").splitlines()]
    step = max(1, len(rows) // settings.limit)
    found: dict[str, list[float]] = defaultdict(list)
    written, constant = [], 0
    chosen = rows[::step][: settings.limit]
    for seed, row in enumerate(track(chosen, "questions", disable=not console.is_terminal)):
        path = settings.photos / row["image"]
        made = correlations(model, path, row["question"], settings.method, seed)
        if made is None:
            constant += 1
            continue
        written.append({**row, "correlations": made})
        for name, value in made.items():
            found[name].append(value)
    if not written:
        sys.exit("no question to judge: covering any place changed no score")
    table = Table("map", "rank correlation", "95 %", title=f"Occlusion, {model.name}")
    summary = {}
    for name, values in found.items():
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)
        summary[name] = (mean, mean - 1.96 * error, mean + 1.96 * error)
        table.add_row(name, f"{mean:.3f}", f"{summary[name][1]:.3f} - {summary[name][2]:.3f}")
    console.print(table)
    console.print(f"{len(written)} questions; {constant} left out, as no patch changed their score")
    if settings.json:
        content = {"summary": summary, "questions": written}
        settings.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
