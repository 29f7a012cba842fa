"""The commands evaluate and summarize, from a model factory to the printed tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from mmcam.cli import app
from mmcam.cli.console import console
from mmcam.datasets import DATASETS
from mmcam.errors import EvaluationError, InputError, OutputError
from mmcam.evaluators import EVALUATORS
from tests.evaluation.coloured import rows_of, square


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`call("evaluate", ...)` returns the output; errors are raised."""
    monkeypatch.setattr(console, "width", 160)

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception:
            raise result.exception
        return result.output

    return run


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Five pictures of squares as JSONL, one of them missing."""
    lines = []
    for number in range(5):
        pixels, colour, box = square(number)
        region = {"label": colour, "box": box}
        lines.append({"path": f"{number}.png", "labels": [colour], "regions": [region]})
        if number != 2:
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return f"jsonl:{tmp_path}/items.jsonl"


MODEL = ("--model", "tests.evaluation.coloured:network")


def test_evaluate_and_summarize(call: Any, data: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--method", "gradcam", "--method", "hirescam", "--baseline", "centre", "--plots")
    output = call("evaluate", "pointing", "win", "--data", data, *MODEL, "--out", out, *options)
    assert "5 items, 1 failed" in output
    assert "there is no such file" in output
    assert "win over centre (up)" in output
    assert {row["method"] for row in rows_of(out)} == {"gradcam", "hirescam", "centre", None}
    assert (out / "plot-pointing.png").is_file()
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert settings["data"] == data
    (out / "summary.json").unlink()
    assert "5 items, 1 failed" in call("summarize", out)
    assert (out / "summary.json").is_file()


def test_a_limited_run_is_resumed(call: Any, data: str, tmp_path: Path) -> None:
    run = ("evaluate", "pointing", "--data", data, *MODEL, "--out", tmp_path / "out")
    assert "2 items" in call(*run, "--limit", 2)
    with pytest.raises(OutputError, match="--resume"):
        call(*run)
    assert "5 items" in call(*run, "--resume", "--workers", 1)
    with pytest.raises(OutputError, match="target was 'given' and is 'predicted'"):
        call(*run, "--resume", "--target", "predicted")


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        (("pointin",), EvaluationError, "nearest: pointing"),
        (("pointing", "--task", "class"), EvaluationError, "nearest: classes"),
        (("pointing", "--data", "jsnl:x"), InputError, "nearest kind: jsonl"),
    ],
)
def test_errors(
    arguments: tuple[str, ...], kind: type[Exception], match: str, call: Any, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=match):
        call("evaluate", "--data", "jsonl:x", *MODEL, "--out", tmp_path, *arguments)


def test_lists_follow_the_tables(call: Any) -> None:
    metrics, datasets = call("list", "metrics"), call("list", "datasets")
    for name in EVALUATORS:
        assert name in metrics
    for row in DATASETS.values():
        assert row.example in datasets


def test_importing_the_runs_imports_no_extra() -> None:
    code = (
        "import sys, mmcam, mmcam.evaluation, mmcam.cli.evaluate, mmcam.evaluation.ray_engine\n"
        "extras = {'pyarrow', 'datasets', 'ray', 'matplotlib', 'torchmetrics', 'pandas'}\n"
        "sys.exit(', '.join(extras & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
