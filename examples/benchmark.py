"""Time and peak memory of mmcam, of other tools and of the bare forward, in one run.

    pip install "mmcam[bench]"             # the other tools; missing ones are skipped
    python examples/benchmark.py           # everything, half an hour on two cores
    python examples/benchmark.py --models r3d_18 --batches 1 --no-memory
    python examples/benchmark.py --quick   # two small networks
    python examples/benchmark.py --device cuda --json benchmark.json

On a machine that is not idle, OMP_NUM_THREADS=1 gives steadier ratios.

The benchmark compares Grad-CAM and Guided Grad-CAM of one class at the last convolutional layer, on
networks with random weights. Every tool gets the same input tensor, the same layer, the same class
and its own copy of the model; everything that can be built once is built before timing. Rows:

- bare forward: the model under `torch.inference_mode()`.
- forward+backward: the plain gradient at the pixels with frozen parameters.
- mmcam: `mmcam.cams`, tensor in, raw map tensor out, as in the other tools' calls.
- mmcam.explain: the one-line call from 8-bit arrays: preprocessing, probabilities, `Explanations`.
- mmcam.explain, first: the same on a newly wrapped model, for which mmcam first finds where the
  layer's cells lie (once for each model, layer and input size).

Agreement: each tool's result is compared before timing with mmcam's result, converted to the form
that the tool returns; "differs" means that the maximum difference is over 0.1 % of the maximum
value.

Time: after a warm-up, each round calls every tool once, in random order, with the garbage collector
off. A ratio is the median over rounds of the call's time divided by that of the baseline in the
same round, so that a slowdown of the machine affects both. Milliseconds are medians.

Memory: each number is from a separate process, which builds the model and the input, explains a
network of a few kilobytes (which loads the tool's libraries, but allocates nothing of the measured
size), and explains once. The number is the peak during this call, minus the memory held just before
it: weights do not count, nor does the input, except the one that mmcam.explain makes itself. On
CUDA it is `torch.cuda.max_memory_allocated`. On a CPU it is the resident set: its high-water mark
is reset before the call where Linux allows it (elsewhere, anything below the peak of start-up reads
as 0), and blocks from 64 KiB on are returned to the system as soon as they are freed, so that
memory left over from start-up cannot hide new allocations.

The columns `t/` and `m/` are ratios of time and memory: to the bare forward, and to
forward+backward (f+b). mmcam's rows end with their limits.
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
    NETWORKS,
    OURS,
    TOOLS,
    Case,
    Reference,
    Run,
    Tool,
    build_case,
    compute_reference,
    tiny_case,
    with_clear_class,
)
from torch import Tensor

TOLERANCE = 1e-3
BARS = {
    "gradcam": {"time_ratio": 1.10, "memory_ratio": 1.15},
    "guided-gradcam": {"time_to_backward": 1.00},
}
"""The limits for mmcam's ratios, to the bare forward or to forward+backward."""
LIBRARIES = ("mmcam", "torch", "torchvision", "pytorchvideo", "captum", "torchcam", "grad-cam")


COLUMNS = {
    "time_ms": "ms",
    "time_ratio": "t/bare",
    "time_to_backward": "t/f+b",
    "memory_mib": "MiB",
    "memory_ratio": "m/bare",
    "memory_to_backward": "m/f+b",
}
"""The numbers of a row, and their column headings."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tool on one model, batch and method. Ratios are None if not measured.

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


def difference(result: Tensor, expected: Tensor) -> float:
    """The maximum difference divided by the maximum expected value.

    Raises:
        ValueError: the shapes differ.
    """
    result, expected = result.detach().double().cpu(), expected.detach().double().cpu()
    if result.shape != expected.shape:
        raise ValueError(f"the result is {tuple(result.shape)}, not {tuple(expected.shape)}")
    largest = float((result - expected).abs().max())
    return largest / (float(expected.abs().max()) or 1.0)


def first_call(tool: Tool, case: Case, reference: Reference) -> tuple[Run | None, dict[str, Any]]:
    """Prepare the tool and call it once: its run, if it works, and the first columns of its row."""
    if not tool.installed:
        return None, {"status": "missing", "note": f"{tool.module} is not installed"}
    if reason := tool.unsupported(case):
        return None, {"status": "unsupported", "note": reason}
    try:
        run = tool.prepare(case.fresh())
        result = run()
        if tool.convert is None:
            return run, {"status": "baseline"}
        share = difference(result, tool.convert(reference, case))
    except Exception as error:  # errors of other packages are reported in their rows
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return None, {"status": "failed", "note": reason}
    if share < TOLERANCE:
        return run, {"status": "agrees", "difference": share}
    reason = (len(case.space) > 2 and tool.known_difference) or "for an unknown reason"
    return run, {"status": "differs", "note": reason, "difference": share}


def seconds(run: Run, device: str) -> float:
    """The time of one call in seconds, including pending work of the device."""
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
    """Wait for pending work of a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def times(runs: dict[str, Run], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """The time columns of each tool."""
    durations: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name in random.Random(number).sample(list(runs), len(runs)):
            durations[name].append(seconds(runs[name], device))
    for tool_durations in durations.values():
        del tool_durations[0]  # the round for warming up
    columns = {}
    for name, tool_durations in durations.items():
        columns[name] = {"time_ms": 1000 * statistics.median(tool_durations)}
        for key, base in (("time_ratio", BARE), ("time_to_backward", BACKWARD)):
            if base in durations:
                pairs = zip(tool_durations, durations[base], strict=True)
                columns[name][key] = statistics.median(own / baseline for own, baseline in pairs)
    return columns


def memories(
    names: Sequence[str], model: str, method: str, case: Case, device: str
) -> dict[str, dict[str, float]]:
    """The memory columns of each tool; a tool whose process failed has none."""
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
    arguments = [model, str(batch), method, tool, str(index)]
    command = [sys.executable, __file__, "--device", device, "--memory-child", *arguments]
    # Setting the threshold fixes it: otherwise the C library raises it at run time.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    if child.returncode:
        print(f"{tool}: memory not measured: {child.stderr.strip().splitlines()[-1:]}")
        return None
    return int(child.stdout.split()[-1])


def peak_of(model: str, batch: int, method: str, name: str, index: int, device: str) -> int:
    """The peak memory of one call minus the memory held before it, in bytes."""
    case = replace(build_case(model, batch, device), index=index)
    tool = TOOLS[method][name]
    tool.prepare(tiny_case(len(case.space), device))()
    run = tool.prepare(case)
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
    """The peak memory of this process, in bytes; `reset` starts a new measurement."""
    status, clear_refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if reset and clear_refs.exists():
        clear_refs.write_text("5")
    # On Linux, ru_maxrss is inherited from the parent process, so it is only the fallback.
    match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if match:
        return int(match[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def compare(model: str, method: str, case: Case, settings: argparse.Namespace) -> list[Row]:
    """All tools on one model, batch and method."""
    reference = compute_reference(case, guided=method != "gradcam")
    runs: dict[str, Run] = {}
    first_columns: dict[str, dict[str, Any]] = {}
    for name, tool in TOOLS[method].items():
        run, first_columns[name] = first_call(tool, case, reference)
        if run is not None:
            runs[name] = run
    time_columns = times(runs, settings.rounds, settings.device)
    names = list(runs)
    del runs, run  # frees the copies of the model
    memory_columns = (
        memories(names, model, method, case, settings.device) if settings.memory else {}
    )
    rows = []
    for name, values in first_columns.items():
        columns: dict[str, Any] = time_columns.get(name, {}) | memory_columns.get(name, {})
        rows.append(
            Row(
                model=model,
                layer=case.layer,
                input=tuple(case.pixels.shape),
                method=method,
                tool=name,
                bars=verdicts(method, columns) if name in OURS else {},
                **values,
                **columns,
            )
        )
    return rows


def verdicts(method: str, columns: dict[str, Any]) -> dict[str, str]:
    """For each limit, whether a row of mmcam is within it, to the two printed digits."""
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
    headings = "".join(f"{COLUMNS[name]:>8}" for name in columns)
    lines = [f"\n{first.model}, {first.layer}, {size}: {first.method}", f"{'':<17}{headings}"]
    for row in rows:
        numbers = "".join(_cell(getattr(row, name)) for name in columns)
        lines.append(f"{row.tool:<17}{numbers}  {_remarks(row)}".rstrip())
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return f"{'-':>8}"
    return f"{value:>8.1f}" if value >= 100 else f"{value:>8.2f}"


def _remarks(row: Row) -> str:
    remarks = "" if row.status == "baseline" else row.status
    if row.status == "differs":
        remarks += f" by {row.difference:.2g}"
    if row.note:
        remarks += f": {row.note}"
    return " ".join([remarks, *(f"[{COLUMNS[key]} {bar}]" for key, bar in row.bars.items())])


def environment(device: str) -> dict[str, Any]:
    """The versions and the machine that the numbers depend on."""
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
    parser.add_argument("--models", nargs="+", choices=NETWORKS, help="default: the large ones")
    parser.add_argument("--batches", nargs="+", type=_positive, help="default: 1 4")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--rounds", type=_positive, help="default: 11")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--quick", action="store_true", help="small models, batch 1, 3 rounds")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows to this file")
    parser.add_argument("--memory-child", nargs=5, help=argparse.SUPPRESS)
    settings = parser.parse_args(arguments)
    small = settings.quick
    if settings.models is None:
        settings.models = [name for name, network in NETWORKS.items() if network.small == small]
    settings.batches = settings.batches or ([1] if small else [1, 4])
    settings.rounds = settings.rounds or (3 if small else 11)
    return settings


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive; give 1 or more")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print each table when it is complete, and write the rows."""
    warnings.simplefilter("ignore")  # warnings of the other tools
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
                rows += (new_rows := compare(model, method, case, settings))
                print(table(new_rows), flush=True)
                if settings.json:  # after every table, so that an interrupted run is not lost
                    report["rows"] = [asdict(row) for row in rows]
                    settings.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
