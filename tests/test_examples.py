"""The scripts in `examples/` run."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("mmcam", "mmcam.explain")


def refuse(constant):
    raise ValueError(f"{constant} is no JSON number")


def test_benchmark_measures_every_tool(tmp_path):
    file = tmp_path / "benchmark.json"
    options = ["--quick", "--no-memory", "--rounds", "1", "--models", "resnet18-small"]
    subprocess.run(
        [sys.executable, ROOT / "examples" / "benchmark.py", *options, "--json", file],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # two threads crawl on a busy machine
        check=True,
        timeout=300,
    )
    report = json.loads(file.read_text(), parse_constant=refuse)
    assert report["machine"]["threads"] == 1
    assert report["versions"]["torch"]
    rows = {(row["method"], row["tool"]): row for row in report["rows"]}
    assert set(rows) == {
        *(("gradcam", tool) for tool in ("bare forward", *OURS, "captum", "torch-cam", "grad-cam")),
        *(
            ("guided-gradcam", tool)
            for tool in ("bare forward", "forward+backward", *OURS, "captum", "grad-cam")
        ),
    }
    for (method, tool), row in rows.items():
        if row["status"] == "missing":
            assert tool not in OURS
            continue
        assert row["status"] == ("baseline" if "forward" in tool else "agrees"), row
        ratios = [row["time_ratio"]]
        ratios += [row["time_to_backward"]] if method == "guided-gradcam" else []
        assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
        assert bool(row["bars"]) == (tool in OURS)
