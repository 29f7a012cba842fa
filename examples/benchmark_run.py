"""What a run over many pictures costs: three methods and five metrics, beside the bare forwards.

    python examples/benchmark_run.py --items 1000
    python examples/benchmark_run.py --items 1000 --photos FOLDER --model FOLDER --weights FILE

The pictures are those of a folder, over and over, or drawn ones; each has a box in its middle.
Every map is judged by average drop, increase, win, pointing and the energy inside the box; the
first three need a forward for each map, so a picture costs 1 + 3 forwards whoever does it. `x bare`
is the time of the whole run (reading, decoding, explaining, measuring, writing) over that of these
forwards in inference mode, in batches of the same size. Peak memory is that of a fresh process, for
a tenth of the items and for all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmark import high_water
from benchmark_tools import blobs
from PIL import Image

import mmcam
from mmcam.evaluation import Study, evaluate

METHODS = ("gradcam", "gradcam++", "layercam")
METRICS = ("average-drop", "increase", "win", "pointing", "energy-inside")
FORWARDS = 1 + len(METHODS)
SIDE = 256
ROUNDS = 5


def write_items(folder: Path, photos: Path | None, count: int) -> Path:
    """A JSONL file of so many pictures, each with a box in its middle."""
    found = sorted(photos.rglob("*.[jJ][pP]*[gG]")) if photos else []
    if photos and not found:
        sys.exit(f"no JPEG in {photos}")
    if not found:
        torch.manual_seed(0)
        found = [folder / f"{at}.jpg" for at in range(min(count, 100))]
        for path, pixels in zip(found, blobs(len(found), (SIDE, SIDE)), strict=True):
            Image.fromarray(pixels).save(path)
    lines = []
    for at in range(count):
        path = found[at % len(found)]
        with Image.open(path) as picture:
            width, height = picture.size
        box = [width // 4, height // 4, width // 2, height // 2]
        item: dict[str, Any] = {"id": str(at), "path": str(path.resolve())}
        lines.append(json.dumps({**item, "regions": [{"box": box}]}))
    file = folder / "items.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def one_run(asked: argparse.Namespace, items: int) -> dict[str, float]:
    """A run in this process: seconds, rows, and the peak of its memory in MiB."""
    model = mmcam.load(asked.model, weights=asked.weights)
    study = Study(
        metrics=METRICS,
        task=mmcam.Classes(),
        methods=METHODS,
        target="predicted",
        batch=asked.batch,
    )
    with tempfile.TemporaryDirectory() as name:
        file = write_items(Path(name), asked.photos, items)
        began = time.perf_counter()
        summary = evaluate(model, f"jsonl:{file}", study, Path(name) / "run")
        seconds = time.perf_counter() - began
    if summary["failed"]:
        sys.exit(f"{summary['failed']} items failed: {summary['errors']}")
    peak = high_water() / 2**20
    return {"items": items, "seconds": seconds, "rows": items * len(METHODS), "peak_mib": peak}


def in_a_process(asked: argparse.Namespace, items: int) -> dict[str, float]:
    """The same in a process of its own."""
    options = ["--model", asked.model, "--batch", str(asked.batch), "--child", str(items)]
    for name in ("weights", "photos"):
        if getattr(asked, name):
            options += [f"--{name}", str(getattr(asked, name))]
    command = [sys.executable, __file__, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def bare_seconds(asked: argparse.Namespace) -> float:
    """One bare forward of a batch, for each picture of it; the median of some rounds."""
    adapter = mmcam.load(asked.model, weights=asked.weights)
    arrays = blobs(asked.batch, (SIDE, SIDE))
    inputs = adapter.prepare([mmcam.Sample(pixels=one) for one in arrays], mmcam.Classes())
    adapter.model.eval()
    spent = []
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            adapter.forward(inputs)
            spent.append(time.perf_counter() - began)
    return statistics.median(spent[1:]) / asked.batch


def main() -> None:
    """Run, compare, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1000, help="how many pictures")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files, drawn ones without it")
    parser.add_argument("--model", default="torchvision:mobilenet_v2")
    parser.add_argument("--weights", help="as the command line takes them")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(one_run(asked, asked.child)))
        return
    if asked.model == "torchvision:mobilenet_v2":
        asked.weights = asked.weights or "random"
    before = bare_seconds(asked)
    runs = [in_a_process(asked, items) for items in (max(asked.items // 10, 1), asked.items)]
    bare = statistics.mean([before, bare_seconds(asked)])
    print("items  rows   seconds  items/s  rows/s  x bare  peak MiB")
    for run in runs:
        run["times_bare"] = run["seconds"] / (bare * FORWARDS * run["items"])
        items, rows, seconds = run["items"], run["rows"], run["seconds"]
        print(
            f"{items:5d}  {rows:5d}  {seconds:7.1f}  {items / seconds:7.2f}  {rows / seconds:6.2f}"
            f"  {run['times_bare']:6.2f}  {run['peak_mib']:8.0f}"
        )
    if asked.json:
        facts = {"bare_seconds": bare, "forwards": FORWARDS, "runs": runs}
        asked.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
