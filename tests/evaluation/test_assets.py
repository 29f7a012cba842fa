"""Runs on real models and data: ImageNet photos, COCO's captions and objects, Kinetics clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mmcam
from mmcam.datasets import open_data
from mmcam.evaluation import Study, evaluate
from tests.evaluation.coloured import rows_of

pytestmark = pytest.mark.assets


def means(summary: dict[str, Any], name: str) -> dict[str, float]:
    return {row["method"]: row["mean"] for row in summary["metrics"] if row["name"] == name}


def test_photos_of_imagenet(assets: Path, tmp_path: Path) -> None:
    model = mmcam.load(assets / "image" / "mobilenetv2_imagenet")
    study = Study(
        metrics=("average-drop", "increase", "win"),
        task=mmcam.Classes(),
        methods=("gradcam", "gradcam++"),
        baselines=("random",),
    )
    summary = evaluate(
        model, f"imagefolder:{assets}/image/imagenet_sample", study, tmp_path, limit=8
    )
    assert (summary["items"], summary["failed"]) == (8, 0)
    drops = means(summary, "average-drop")
    assert drops["gradcam"] < drops["random"]
    rows = rows_of(tmp_path)
    assert rows[0]["label"] == "tench"  # its own label, from the file's name
    assert rows[0]["layer"] == "blocks"


def test_objects_and_captions_of_coco(assets: Path, tmp_path: Path) -> None:
    spec = f"coco:{assets}/image/coco"
    photos, captions = open_data(spec, "classes"), open_data(spec, "caption")
    assert len(photos) == 80
    assert len(captions) > 4 * len(photos)
    for item in list(photos)[:20]:
        size = item.read(None).pixels.shape[:2]
        assert all(region.mask(size).any() for region in item.regions.values())
    model = mmcam.load(assets / "image" / "show_and_tell_flickr8k")
    study = Study(
        metrics=("word-pointing", "energy-inside"),
        task=mmcam.Caption(words="visual"),
        methods=("gradcam",),
        baselines=("uniform", "centre", "activation"),
    )
    summary = evaluate(model, captions, study, tmp_path, limit=24)
    rows = rows_of(tmp_path)
    failed = [row["error"] for row in rows if row["error"]]
    assert len(failed) < 24
    assert all("LabelError" in error for error in failed)  # words that this model does not know
    judged = [row for row in rows if row["word-pointing"] is not None]
    assert {row["kind"] for row in judged} == {"word"}
    assert {row["method"] for row in judged} == {"gradcam", "uniform", "centre", "activation"}
    assert all(
        0 <= mean <= 1 for mean in means(summary, "energy-inside").values() if mean is not None
    )


def test_clips_of_kinetics(assets: Path, tmp_path: Path) -> None:
    clips = {
        "flipping_a_pancake.mkv": "flipping pancake",
        "mmaction_arm_wrestling.mp4": "arm wrestling",
        "torchvideo_high_jump.mp4": "high jump",
    }
    (tmp_path / "val.csv").write_text("".join(f"{k},{v}\n" for k, v in clips.items()))
    model = mmcam.load(assets / "video" / "x3d_xs_kinetics400")
    study = Study(
        metrics=("average-drop", "increase"),
        task=mmcam.Actions(),
        methods=("gradcam", "gradcam++"),
    )
    spec = f"kinetics:{tmp_path}/val.csv?clips={assets}/video/clips"
    summary = evaluate(model, spec, study, tmp_path / "out", workers=1)
    assert summary["failed"] == 0
    rows = rows_of(tmp_path / "out")
    assert [row["label"] for row in rows[::2]] == list(clips.values())
    assert min(row["probability"] for row in rows) > 0.9


def test_questions_about_flickrs_photos(assets: Path, tmp_path: Path) -> None:
    folder = assets / "image" / "flickr8k_test"
    questions = [json.loads(line) for line in (folder / "vqa.jsonl").read_text().splitlines()[:6]]
    lines = [
        {
            "path": str(folder / "images" / question["image"]),
            "text": question["question"],
            "labels": [question["answer"]],
        }
        for question in questions
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    model = mmcam.load(assets / "image" / "vqa_flickr8k")
    study = Study(metrics=("average-drop",), task=mmcam.Answers(), baselines=("centre",))
    summary = evaluate(model, f"jsonl:{tmp_path}/items.jsonl", study, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert summary["items"] == 6
    assert {row["kind"] for row in rows} == {"answer"}
    assert rows[0]["text"] == questions[0]["question"]
    assert len(open_data(f"flickr:{folder}")) == 5 * len(
        json.loads((folder / "captions.json").read_text())
    )
