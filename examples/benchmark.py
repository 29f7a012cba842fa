"""Time and peak memory of mmcam beside other tools and beside the bare forward, in one run.

    pip install "mmcam[bench]"             # the other tools; missing ones are left out
    python examples/benchmark.py           # everything, half an hour on two cores
    python examples/benchmark.py --models r3d_18 --batches 1 --no-memory
    python examples/benchmark.py --quick   # two small networks
    python examples/benchmark.py --device cuda --json benchmark.json

On a machine that is not idle, OMP_NUM_THREADS=1 gives steadier ratios.

What is compared: Grad-CAM and Guided Grad-CAM of one class at the last convolutional layer, on
networks with random weights. Every tool gets the same input tensor, the same layer, the same class
and a copy of the model of its own; what can be built once is built before the clock starts. Rows:

- bare forward: the model under `torch.inference_mode()`.
- forward+backward: the plain gradient at the pixels with frozen parameters.
- mmcam: tensor in, raw map tensor out (capture, gradient, method); what the other tools' calls do.
- mmcam.explain: the one-line call from 8-bit arrays: preprocessing, probabilities, `Explanations`.

Agreement: each tool's result is compared with ours, composed into the form that the tool returns,
before it is timed; "differs" says that the largest difference is over 0.1 % of the largest value.

Time: after a warm-up, each round calls every tool once, in an order drawn anew, with the garbage
collector off. A ratio is the median over rounds of the call's time to that of the baseline in the
same round, so that a machine that slows down slows both. Milliseconds are medians.

Memory: each number is from a process of its own, which builds the model and the input, lets the
tool explain a network of a few kilobytes (its libraries are then loaded, and nothing of the size
that is measured was allocated), and explains once. It is the highest point that this call reaches
above what was held just before it: weights do not count, nor does the input, but for the one that
mmcam.explain makes itself. On CUDA it is `torch.cuda.max_memory_allocated`. On a CPU it is the
resident set: its high-water mark is reset before the call where Linux allows it (elsewhere, what
stays under the peak of start-up reads as nothing), and blocks from 64 KiB on go back to the system
as soon as they are freed, so that what start-up left over cannot hide any.

The columns `t/` and `m/` are ratios of time and memory: to the bare forward, and to
forward+backward (f+b). Behind our rows stand the bars that they are held to.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from benchmark_tools import (
    BACKWARD,
    BARE,
    METHODS,
    SUBJECTS,
    TOOLS,
    Case,
    Reference,
    Run,
    Tool,
    build_case,
    ours,
    stand_in,
    with_clear_class,
)
from torch import Tensor

TOLERANCE = 1e-3
BARS = {
    "gradcam": {"time_ratio": 1.10, "memory_ratio": 1.15},
    "guided-gradcam": {"time_to_backward": 1.00},
}
"""What mmcam sets out to stay under: to the bare forward, or to forward+backward."""
LIBRARIES = ("mmcam", "torch", "torchvision", "pytorchvideo", "captum", "torchcam", "grad-cam")


COLUMNS = {
    "time_ms": "ms",
    "time_ratio": "t/bare",
    "time_to_backward": "t/f+b",
    "memory_mib": "MiB",
    "memory_ratio": "m/bare",
    "memory_to_backward": "m/f+b",
}
"""The numbers of a row, and the heads of their columns."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tool on one model, batch and method. Ratios are None where nothing was measured.

    `status` is "baseline", "agrees", "differs", "unsupported", "missing" or "failed".
    """

    model: str
    layer: str
    input: tuple[int, ...]
    method: str
    tool: str
    status: str
    note: str = ""
    difference: float | None = None
    time_ms: float | None = None
    time_ratio: float | None = None
    time_to_backward: float | None = None
    memory_mib: float | None = None
    memory_ratio: float | None = None
    memory_to_backward: float | None = None
    bars: dict[str, str] = field(default_factory=dict)


def difference(made: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest expected value.

    Raises:
        ValueError: their shapes differ.
    """
    made, expected = made.detach().double().cpu(), expected.detach().double().cpu()
    if made.shape != expected.shape:
        raise ValueError(f"the result is {tuple(made.shape)}, not {tuple(expected.shape)}")
    largest = float((made - expected).abs().max())
    return largest / (float(expected.abs().max()) or 1.0)


def first_call(tool: Tool, case: Case, reference: Reference) -> tuple[Run | None, dict[str, Any]]:
    """The tool made ready and called once, if it can be, and how its row begins."""
    if not tool.installed:
        return None, {"status": "missing", "note": f"{tool.module} is not installed"}
    if reason := tool.limits(case):
        return None, {"status": "unsupported", "note": reason}
    try:
        run = tool.make(case.fresh())
        made = run()
        if tool.form is None:
            return run, {"status": "baseline"}
        share = difference(made, tool.form(reference, case))
    except Exception as error:  # whatever another package raises is a result, too
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return None, {"status": "failed", "note": reason}
    if share < TOLERANCE:
        return run, {"status": "agrees", "difference": share}
    reason = (len(case.space) > 2 and tool.known) or "for an unknown reason"
    return run, {"status": "differs", "note": reason, "difference": share}


def seconds(run: Run, device: str) -> float:
    """How long one call takes, until the device is done."""
    gc.collect()
    gc.disable()
    try:
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        return time.perf_counter() - start
    finally:
        gc.enable()


def synchronize(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def times(runs: dict[str, Run], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """The columns of time for each tool."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name in random.Random(number).sample(list(runs), len(runs)):
            taken[name].append(seconds(runs[name], device))
    for measured in taken.values():
        del measured[0]  # the round for warming up
    columns = {}
    for name, measured in taken.items():
        columns[name] = {"time_ms": 1000 * statistics.median(measured)}
        for key, base in (("time_ratio", BARE), ("time_to_backward", BACKWARD)):
            if base in taken:
                pairs = zip(measured, taken[base], strict=True)
                columns[name][key] = statistics.median(one / other for one, other in pairs)
    return columns


def memories(
    names: Sequence[str], model: str, method: str, case: Case, device: str
) -> dict[str, dict[str, float]]:
    """The columns of memory for each tool; none where its process failed."""
    peaks = {}
    for name in names:
        peak = peak_in_child(model, len(case.pixels), method, name, case.index, device)
        if peak:
            peaks[name] = peak
    columns = {}
    for name, peak in peaks.items():
        columns[name] = {"memory_mib": peak / 2**20}
        for key, base in (("memory_ratio", BARE), ("memory_to_backward", BACKWARD)):
            if base in peaks:
                columns[name][key] = peak / peaks[base]
    return columns


def peak_in_child(
    model: str, batch: int, method: str, tool: str, index: int, device: str
) -> int | None:
    """`peak_of` one call in a fresh process, in bytes; None if that fails."""
    question = [model, str(batch), method, tool, str(index)]
    command = [sys.executable, __file__, "--device", device, "--memory-child", *question]
    # A threshold that is set is fixed: otherwise the C library raises it as it goes.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{tool}: memory not measured: {done.stderr.strip().splitlines()[-1:]}")
        return None
    return int(done.stdout.split()[-1])


def peak_of(model: str, batch: int, method: str, name: str, index: int, device: str) -> int:
    """By how many bytes one call goes over what was held before it."""
    case = replace(build_case(model, batch, device), index=index)
    tool = TOOLS[method][name]
    tool.make(stand_in(len(case.space), device))()
    run = tool.make(case)
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    before = high_water(reset=True)
    run()
    return high_water() - before


def high_water(reset: bool = False) -> int:
    """The most memory this process has held, in bytes; since now, with `reset`."""
    status, switch = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if reset and switch.exists():
        switch.write_text("5")
    # Linux hands ru_maxrss down from the process that started this one, so it comes second.
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def compare(model: str, method: str, case: Case, settings: argparse.Namespace) -> list[Row]:
    """All tools on one model, batch and method."""
    reference = ours(case, guided=method != "gradcam")
    runs: dict[str, Run] = {}
    begun: dict[str, dict[str, Any]] = {}
    for name, tool in TOOLS[method].items():
        run, begun[name] = first_call(tool, case, reference)
        if run is not None:
            runs[name] = run
    time_columns = times(runs, settings.rounds, settings.device)
    names = list(runs)
    del runs, run  # the copies of the model
    memory_columns = (
        memories(names, model, method, case, settings.device) if settings.memory else {}
    )
    rows = []
    for name, values in begun.items():
        columns: dict[str, Any] = time_columns.get(name, {}) | memory_columns.get(name, {})
        rows.append(
            Row(
                model=model,
                layer=case.layer,
                input=tuple(case.pixels.shape),
                method=method,
                tool=name,
                bars=verdicts(method, columns) if name.startswith("mmcam") else {},
                **values,
                **columns,
            )
        )
    return rows


def verdicts(method: str, columns: dict[str, Any]) -> dict[str, str]:
    """For each bar whether a row of ours is under it, to the two digits that are printed."""
    return {
        key: f"{bar:.2f} {'PASS' if round(columns[key], 2) <= bar else 'over'}"
        for key, bar in BARS[method].items()
        if key in columns
    }


def table(rows: Sequence[Row]) -> str:
    """The rows of one model, batch and method, as text."""
    first = rows[0]
    size = " x ".join(map(str, first.input))
    guided = any(row.tool == BACKWARD for row in rows)
    columns = [name for name in COLUMNS if guided or not name.endswith("backward")]
    head = "".join(f"{COLUMNS[name]:>8}" for name in columns)
    lines = [f"\n{first.model}, {first.layer}, {size}: {first.method}", f"{'':<17}{head}"]
    for row in rows:
        numbers = "".join(_cell(getattr(row, name)) for name in columns)
        lines.append(f"{row.tool:<17}{numbers}  {_remarks(row)}".rstrip())
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return f"{'-':>8}"
    return f"{value:>8.1f}" if value >= 100 else f"{value:>8.2f}"


def _remarks(row: Row) -> str:
    said = "" if row.status == "baseline" else row.status
    if row.status == "differs":
        said += f" by {row.difference:.2g}"
    if row.note:
        said += f": {row.note}"
    return " ".join([said, *(f"[{COLUMNS[key]} {bar}]" for key, bar in row.bars.items())])


def environment(device: str) -> dict[str, Any]:
    """What the numbers depend on: versions and the machine."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = None
    return {
        "versions": versions,
        "machine": {
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        },
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, help="default: the large ones")
    parser.add_argument("--batches", nargs="+", type=_positive, help="default: 1 4")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--rounds", type=_positive, help="default: 11")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--quick", action="store_true", help="small models, batch 1, 3 rounds")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows there")
    parser.add_argument("--memory-child", nargs=5, help=argparse.SUPPRESS)
    settings = parser.parse_args(arguments)
    small = settings.quick
    if settings.models is None:
        settings.models = [name for name, one in SUBJECTS.items() if one.small == small]
    settings.batches = settings.batches or ([1] if small else [1, 4])
    settings.rounds = settings.rounds or (3 if small else 11)
    return settings


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is none; give 1 or more")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table as soon as it is there, write the rows."""
    warnings.simplefilter("ignore")  # the other tools'
    settings = parse(arguments)
    if settings.memory_child:
        model, batch, method, tool, index = settings.memory_child
        print(peak_of(model, int(batch), method, tool, int(index), settings.device))
        return
    report = environment(settings.device) | {"rounds": settings.rounds, "bars": BARS}
    for part in ("versions", "machine"):
        print(", ".join(f"{key} {value}" for key, value in report[part].items()))
    rows: list[Row] = []
    for model in settings.models:
        for batch in settings.batches:
            case = with_clear_class(build_case(model, batch, settings.device))
            for method in settings.methods:
                rows += (made := compare(model, method, case, settings))
                print(table(made), flush=True)
                if settings.json:  # after every table, so that a run cut short is not lost
                    report["rows"] = [asdict(row) for row in rows]
                    settings.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
