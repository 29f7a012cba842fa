"""Time and memory of a run over many pictures: three methods, five metrics, and bare forwards.

    python examples/benchmark_run.py --items 1000
    python examples/benchmark_run.py --items 1000 --photos FOLDER --model FOLDER --weights FILE

The pictures are those of a folder, repeated, or synthetic ones; each has a box in the middle. Every
map is evaluated by average drop, increase, win, pointing and the energy inside the box; the first
three need a forward for each map, so each picture costs at least 1 + 3 forwards. `x bare` is the
time of the whole run (reading, decoding, explaining, measuring, writing) divided by the time of
these forwards in inference mode, in batches of the same size. Peak memory is that of a fresh
process, for a tenth of the items and for all of them.
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
    """A JSONL file of `count` pictures, each with a box in the middle."""
    paths = sorted(photos.rglob("*.[jJ][pP]*[gG]")) if photos else []
    if photos and not paths:
        sys.exit(f"no JPEG in {photos}")
    if not paths:
        torch.manual_seed(0)
        paths = [folder / f"{index}.jpg" for index in range(min(count, 100))]
        for path, pixels in zip(paths, blobs(len(paths), (SIDE, SIDE)), strict=True):
            Image.fromarray(pixels).save(path)
    lines = []
    for index in range(count):
        path = paths[index % len(paths)]
        with Image.open(path) as picture:
            width, height = picture.size
        box = [width // 4, height // 4, width // 2, height // 2]
        item: dict[str, Any] = {"id": str(index), "path": str(path.resolve())}
        lines.append(json.dumps({**item, "regions": [{"box": box}]}))
    file = folder / "items.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def run_here(args: argparse.Namespace, items: int) -> dict[str, float]:
    """Run in this process: seconds, rows, and peak memory in MiB."""
    model = mmcam.load(args.model, weights=args.weights)
    study = Study(
        metrics=METRICS,
        task=mmcam.Classes(),
        methods=METHODS,
        target="predicted",
        batch=args.batch,
    )
    with tempfile.TemporaryDirectory() as name:
        file = write_items(Path(name), args.photos, items)
        start = time.perf_counter()
        summary = evaluate(model, f"jsonl:{file}", study, Path(name) / "run")
        seconds = time.perf_counter() - start
    if summary["failed"]:
        sys.exit(f"{summary['failed']} items failed: {summary['errors']}")
    peak = high_water() / 2**20
    return {"items": items, "seconds": seconds, "rows": items * len(METHODS), "peak_mib": peak}


def run_in_child(args: argparse.Namespace, items: int) -> dict[str, float]:
    """`run_here` in a child process."""
    options = ["--model", args.model, "--batch", str(args.batch), "--child", str(items)]
    for name in ("weights", "photos"):
        if getattr(args, name):
            options += [f"--{name}", str(getattr(args, name))]
    command = [sys.executable, __file__, *options]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return result


def bare_seconds(args: argparse.Namespace) -> float:
    """The time of a bare forward per picture, as the median of `ROUNDS` batches."""
    adapter = mmcam.load(args.model, weights=args.weights)
    arrays = blobs(args.batch, (SIDE, SIDE))
    inputs = adapter.prepare([mmcam.Sample(pixels=array) for array in arrays], mmcam.Classes())
    adapter.model.eval()
    times = []
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            adapter.forward(inputs)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) / args.batch


def main() -> None:
    """Run, compare, print a table, and write JSON if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1000, help="number of pictures")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files; default: synthetic")
    parser.add_argument("--model", default="torchvision:mobilenet_v2")
    parser.add_argument("--weights", help="as for the mmcam command line")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(run_here(args, args.child)))
        return
    if args.model == "torchvision:mobilenet_v2":
        args.weights = args.weights or "random"
    before = bare_seconds(args)
    runs = [run_in_child(args, items) for items in (max(args.items // 10, 1), args.items)]
    bare = statistics.mean([before, bare_seconds(args)])
    print("items  rows   seconds  items/s  rows/s  x bare  peak MiB")
    for run in runs:
        run["times_bare"] = run["seconds"] / (bare * FORWARDS * run["items"])
        items, rows, seconds = run["items"], run["rows"], run["seconds"]
        print(
            f"{items:5d}  {rows:5d}  {seconds:7.1f}  {items / seconds:7.2f}  {rows / seconds:6.2f}"
            f"  {run['times_bare']:6.2f}  {run['peak_mib']:8.0f}"
        )
    if args.json:
        facts = {"bare_seconds": bare, "forwards": FORWARDS, "runs": runs}
        args.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
