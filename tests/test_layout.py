"""A reader's test: each question has its answer in the file that its name suggests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ANSWERS = {
    "where is Grad-CAM++": (r"def grad_cam_plus_plus\(", "mmcam/methods/cams.py"),
    "where is Score-CAM": (r"def score_cam\(", "mmcam/methods/perturbation.py"),
    "where is the table of methods": (r"^METHODS\b.* = ", "mmcam/methods/table.py"),
    "where are COCO files read": (r"def read_coco\(", "mmcam/datasets/coco.py"),
    "where are Kinetics' lists read": (r"def read_kinetics\(", "mmcam/datasets/kinetics.py"),
    "where are VQA's questions read": (r"def read_vqa\(", "mmcam/datasets/vqa.py"),
    "where is a data set opened by name": (r"def open_data\(", "mmcam/datasets/registry.py"),
    "where does a Qwen layer become a grid": (
        r"^class PackedPatches\(",
        "adapters/transformers/images.py",
    ),
    "where are types of transformers told apart": (
        r"^MODEL_TYPES\b.* = ",
        "adapters/transformers/model_types.py",
    ),
    "where is a caption teacher-forced": (
        r"^class TeacherForcing\(",
        "adapters/transformers/teacher_forcing.py",
    ),
    "where is a page made": (r"^def page\(record", "mmcam/page/html.py"),
    "where is the player of a page": (r"^class Player\b", "mmcam/page/static/player.js"),
    "where is explanation.json written": (r"def write_facts\(", "mmcam/results/files.py"),
    "where is a result read back": (r"^def read\(folder", "mmcam/explanations.py"),
    "where is an overlay drawn": (r"^def overlay\(", "mmcam/render/overlay.py"),
    "where is a clip cut into windows": (r"^def window_spans\(", "mmcam/media/windows.py"),
    "where are ReLUs guided": (r"^class ReluRule\b", "mmcam/capture/relu_rules.py"),
    "where is the model left as found": (r"^def untouched\(", "mmcam/capture/model_state.py"),
    "where is a module wrapped": (r"^def wrap\(", "mmcam/models/wrap.py"),
    "where is the pointing game": (r"^def pointing_game\(", "mmcam/evaluators/pointing.py"),
    "where are intervals of a run computed": (
        r"def interval\(",
        "mmcam/evaluation/statistics.py",
    ),
    "where is mmcam caption": (r"^def caption\(\n    images", "mmcam/cli/explain.py"),
}


@pytest.mark.parametrize("question", ANSWERS)
def test_the_answer_is_where_its_name_suggests(question: str) -> None:
    pattern, place = ANSWERS[question]
    files = [
        path.relative_to(ROOT).as_posix()
        for top in ("mmcam", "adapters")
        for path in sorted((ROOT / top).rglob("*"))
        if path.suffix in (".py", ".js")
        and re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert files == [place]
