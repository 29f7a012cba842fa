"""The scripts in `examples/` run."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("mmcam", "mmcam.explain")


def refuse(constant):
    raise ValueError(f"{constant} is no JSON number")


def run_script(folder, script, *options):
    """Run a script and return the JSON that it writes."""
    file = folder / "report.json"
    subprocess.run(
        [sys.executable, ROOT / "examples" / script, *options, "--json", file],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # two threads are slow on a busy machine
        check=True,
        timeout=300,
    )
    return file.read_text()


def test_benchmark_measures_every_tool(tmp_path):
    options = ["--quick", "--no-memory", "--rounds", "1", "--models", "resnet18-small"]
    report = json.loads(run_script(tmp_path, "benchmark.py", *options), parse_constant=refuse)
    assert report["machine"]["threads"] == 1
    assert report["versions"]["torch"]
    rows = {(row["method"], row["tool"]): row for row in report["rows"]}
    assert set(rows) == {
        *(("gradcam", tool) for tool in ("bare forward", *OURS, "mmcam.explain, first")),
        *(("gradcam", tool) for tool in ("captum", "torch-cam", "grad-cam")),
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


def test_benchmark_of_words_measures_every_tool(tmp_path):
    report = json.loads(run_script(tmp_path, "benchmark_words.py", "--quick"))
    rows = {(row["model"], row["tool"]): row for row in report["rows"]}
    assert {model for model, _ in rows} == {"small-words", "small-answers"}
    ours = {"mmcam (loop)", "mmcam (batched)"} | {"mmcam.explain"}
    assert ours | {"bare forward"} <= {tool for _, tool in rows}
    for (_, tool), row in rows.items():
        assert row["status"] == ("baseline" if tool == "bare forward" else "agrees"), row
        assert row["time_ratio"] > 0


def test_benchmark_of_a_run_counts_every_item(tmp_path):
    options = ["--items", "10", "--model", "torchvision:squeezenet1_1", "--weights", "random"]
    report = json.loads(run_script(tmp_path, "benchmark_run.py", *options))
    assert [(run["items"], run["rows"]) for run in report["runs"]] == [(1, 3), (10, 30)]
    for run in report["runs"]:
        assert run["times_bare"] > 0
        assert run["peak_mib"] > 50


def on_coco(assets):
    """Options of the COCO scripts: a captioner, the photos and the method."""
    coco = assets / "image" / "coco"
    return [
        *("--model", assets / "image" / "show_and_tell_flickr8k", "--method", "gradcam"),
        *("--instances", coco / "annotations" / "instances_train2017.json"),
        *("--photos", coco / "train2017"),
    ]


@pytest.mark.assets
def test_word_pointing_evaluates_every_word_and_its_baselines(assets, tmp_path):
    captions = assets / "image" / "coco" / "annotations" / "captions_train2017.json"
    options = [*on_coco(assets), "--captions", captions, "--limit", "3"]
    report = json.loads(run_script(tmp_path, "word_pointing.py", *options))
    assert report["said"] + report["unsaid"] == 15
    assert set(report["summary"]) == {
        *("chance", "centre", "gradcam", "activation", "gradcam, wrong word")
    }
    for word in report["words"]:
        assert word["word"] in word["caption"].lower()
        assert 0 < word["hits"]["chance"] < 1
        assert set(word["hits"].values()) - {word["hits"]["chance"]} <= {0.0, 1.0}


@pytest.mark.assets
def test_in_out_ratio_evaluates_methods_and_baselines(assets, tmp_path):
    report = json.loads(run_script(tmp_path, "in_out_ratio.py", *on_coco(assets), "--limit", "2"))
    names = {"gradcam", "activation", "gradcam, wrong words", "centre"}
    assert set(report["summary"]) <= names
    assert {description["photo"] for description in report["descriptions"]}
    for description in report["descriptions"]:
        assert description["text"].startswith("a ")
        assert set(description["ratios"]) <= names
        assert min(description["ratios"].values()) >= 0
