"""The packaged models are trained, and their maps lie on what a word, answer or action rests on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmcam
from mmcam import shapes
from mmcam.demo import packaged, two_tone_question
from mmcam.evaluators.pointing import chance, energy_inside
from mmcam.types import Adapter

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "examples"))

import shapes_training as st  # noqa: E402
import train_shapes  # noqa: E402

SEEDS = shapes.SPLITS["test"][100_000:100_200]
"""Test seeds that nothing was chosen by."""

NAMES = ("captioner", "vqa", "action")


@pytest.fixture(scope="module")
def models() -> dict[str, Adapter]:
    return {name: mmcam.load(packaged(name)) for name in NAMES}


@pytest.mark.parametrize(
    ("measure", "name", "what", "least", "blind"),
    [
        (train_shapes.measure_caption, "captioner", "words", 0.94, 0.53),
        (train_shapes.measure_caption, "captioner", "visual words", 0.92, 0.39),
        (train_shapes.measure_vqa, "vqa", "answers", 0.92, 0.29),
        (train_shapes.measure_action, "action", "actions", 0.97, 0.13),
    ],
)
def test_models_are_right_on_seeds_that_they_have_not_seen(
    measure: Callable[[Path, range], dict[str, float]],
    name: str,
    what: str,
    least: float,
    blind: float,
) -> None:
    """`blind` is the best of the baselines in `tests/shapes/test_blind.py`."""
    assert blind < least < measure(packaged(name), SEEDS)[what]


@pytest.mark.parametrize("name", NAMES)
def test_the_model_card_says_how_right_they_are(name: str) -> None:
    card = (packaged(name).parent / "README.md").read_text(encoding="utf-8")
    rows = [line for line in card.splitlines() if line.startswith(f"| `{name}`")]
    assert len(rows) == 1
    size = sum(file.stat().st_size for file in packaged(name).iterdir())
    assert f"{size / 1e6:.1f} MB" in rows[0]


def test_they_are_small() -> None:
    files = [file for name in NAMES for file in packaged(name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 12e6


def test_a_words_map_lies_on_what_it_names(models: dict[str, Adapter]) -> None:
    shares, areas = [], []
    for seed in SEEDS[:25]:
        scene = shapes.scene(seed)
        caption = shapes.caption(scene)
        masks = {w.position: w.mask for w in caption.words if w.kind in ("colour", "shape")}
        task = mmcam.Caption(caption.text, words=list(masks))
        for explanation in mmcam.explain(models["captioner"], scene.pixels, task):
            if explanation.target.position in masks:
                heat, mask = explanation.heatmap(), masks[explanation.target.position]
                shares.append(energy_inside(heat, mask))
                areas.append(chance(heat, mask))
    assert np.mean(shares) > 1.5 * np.mean(areas)


def test_either_colour_of_a_two_tone_thing_lies_more_on_its_own_half(
    models: dict[str, Adapter],
) -> None:
    own, others = [], []
    for seed in SEEDS:
        scene = shapes.scene(seed)
        question = two_tone_question(scene)
        if question is None:
            continue
        maps = mmcam.explain(
            models["vqa"], scene.pixels, mmcam.Answers(question.text, [*question.answers])
        )
        for label, mask in question.answers.items():
            other = next(name for name in question.answers if name != label)
            own.append(energy_inside(maps[label].heatmap(), mask))
            others.append(energy_inside(maps[other].heatmap(), mask))
    assert len(own) > 20
    assert np.mean(own) > 1.1 * np.mean(others)


def test_an_actions_map_lies_more_on_what_acts_than_its_share_of_the_clip(
    models: dict[str, Adapter],
) -> None:
    shares, areas = [], []
    for seed in SEEDS[:30]:
        clip = shapes.clip(seed)
        explanation = mmcam.explain(models["action"], clip.pixels, mmcam.Actions([clip.action]))[0]
        heat, mask = explanation.heatmap(), clip.objects[clip.actor].masks
        shares.append(energy_inside(heat, mask))
        areas.append(chance(heat, mask))
    assert np.mean(shares) > 1.3 * np.mean(areas)


def _dataset(make_sample: st.SampleMaker, count: int) -> st.Dataset:
    samples = [make_sample(seed) for seed in shapes.SPLITS["train"][:count]]
    return st.Dataset(
        np.stack([pixels for pixels, _ in samples]), [labels for _, labels in samples]
    )


@pytest.mark.parametrize("name", ["caption", "vqa", "action"])
def test_two_trainings_from_one_seed_give_the_same_weights(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sample, _, config = train_shapes.TRAININGS[name]
    dataset = _dataset(make_sample, 12)
    files = []
    for number, seed in enumerate((0, 0, 1)):
        short = st.TrainingConfig(**{**vars(config), "seed": seed, "steps": 3, "batch": 4})
        folder = tmp_path / str(number)
        if name == "action":
            train_shapes.train_action(folder, short, dataset, short)
        elif name == "vqa":
            cnn = train_shapes.make_vqa_cnn(packaged("captioner"))
            train_shapes.train_vqa(folder, short, dataset, cnn, short)
        else:
            cnn = train_shapes.pretrain_cnn(short, _dataset(st.make_single_thing, 12))
            train_shapes.train_captioner(folder, short, dataset, cnn)
        files.append((folder / "weights.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]
    adapter: Any = mmcam.load(tmp_path / "0")
    manifest = json.loads((tmp_path / "0" / "mmcam.json").read_text())
    packaged_as = json.loads((packaged(_folder(name)) / "mmcam.json").read_text())
    assert manifest == packaged_as
    assert adapter.weights.sha256
    assert "step" not in capsys.readouterr().out  # too few to be printed


def _folder(name: str) -> str:
    return "captioner" if name == "caption" else name
