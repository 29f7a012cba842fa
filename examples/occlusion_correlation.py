"""Do maps of answers correlate with occlusion maps? (ICCV section 5.3, IJCV sections 5.3, 8.2.)

    python examples/occlusion_correlation.py --model my_vqa/ --photos images/ --pairs vqa.jsonl

`--pairs` has a line of JSON for each question: {"image": file name, "question": text}. The model's
best answer is explained. The reference is its occlusion map (`mmcam list methods`): the drop of the
answer's score when each patch in turn is covered. Each method's map, at the picture's resolution,
is averaged over the cells of the occlusion map. The result is Spearman's rank correlation of both:
its mean over the questions and a 95 % interval. The baselines are a Gaussian in the middle of the
picture, a random map, and the mean activation, which does not depend on the answer.

The papers report 0.60 for Grad-CAM and 0.42 for guided backpropagation, with VGG-16 on VQA.
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
    """Each map's correlation with the occlusion map of the model's best answer.

    None if the occlusion map is constant, since rank correlation is then undefined.
    """
    sample = replace(read_image(path), text=question)
    all_methods = [*methods, "activation", "occlusion"]
    explanations = mmcam.explain(model, sample, mmcam.Answers(), method=all_methods)
    maps = {explanation.method: explanation for explanation in explanations}
    reference = maps["occlusion"].cam.numpy()
    if reference.min() == reference.max():
        return None
    size = sample.pixels.shape[:2]
    # Pixels outside the model's crop are NaN in every map; the reference covers the crop.
    heatmaps = {name: maps[name].heatmap() for name in (*methods, "activation")}
    heatmaps |= {"centre": centre_map(size), "random": random_map(seed, size)}
    return {name: occlusion_correlation(heatmap, reference) for name, heatmap in heatmaps.items()}


def main() -> None:
    """Correlate, print a table, and write all questions as JSON if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a VQA model, as for mmcam vqa")
    parser.add_argument("--pairs", type=Path, required=True, help="a JSONL file of questions")
    parser.add_argument("--photos", type=Path, required=True, help="the folder of photos")
    parser.add_argument("--method", nargs="+", default=list(METHODS))
    parser.add_argument(
        "--limit", type=int, default=100, help="the number of questions, spread over the file"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all questions to this file"
    )
    settings = parser.parse_args()
    console, model = Console(), mmcam.load(settings.model)
    rows = [json.loads(line) for line in settings.pairs.read_text(encoding="utf-8").splitlines()]
    step = max(1, len(rows) // settings.limit)
    values_by_map: dict[str, list[float]] = defaultdict(list)
    results, constant = [], 0
    selected = rows[::step][: settings.limit]
    for seed, row in enumerate(track(selected, "questions", disable=not console.is_terminal)):
        path = settings.photos / row["image"]
        result = correlations(model, path, row["question"], settings.method, seed)
        if result is None:
            constant += 1
            continue
        results.append({**row, "correlations": result})
        for name, value in result.items():
            values_by_map[name].append(value)
    if not results:
        sys.exit("no question to evaluate: every occlusion map is constant")
    table = Table("map", "rank correlation", "95 %", title=f"Occlusion, {model.name}")
    summary = {}
    for name, values in values_by_map.items():
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)
        summary[name] = (mean, mean - 1.96 * error, mean + 1.96 * error)
        table.add_row(name, f"{mean:.3f}", f"{summary[name][1]:.3f} - {summary[name][2]:.3f}")
    console.print(table)
    console.print(
        f"{len(results)} questions; {constant} left out, as their occlusion maps are constant"
    )
    if settings.json:
        content = {"summary": summary, "questions": results}
        settings.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
