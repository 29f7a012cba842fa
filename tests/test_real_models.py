"""Explanations of real models on photos and clips (marker `assets`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mmcam
from mmcam.adapters.base.classifier import Classifier
from mmcam.capture.model_state import untouched
from mmcam.cli import main
from mmcam.engine.pictures import explain_samples
from mmcam.grids import resize
from mmcam.media import open_clip, read_image
from mmcam.media.windows import sample_window
from mmcam.methods.plan import Plan
from mmcam.types import Adapter, Sample

pytestmark = pytest.mark.assets

BOXES = {"boxer": (221, 27, 471, 316), "tiger cat": (128, 257, 571, 480)}
"""Where the two animals are in cat_dog.jpg: left, top, right, bottom, in pixels."""

ACTIONS = {
    "flipping_a_pancake.mkv": "flipping pancake",
    "mmaction_arm_wrestling.mp4": "arm wrestling",
    "mmaction_cleaning_pool.mp4": "cleaning pool",
    "mmaction_cleaning_pool_32f.mp4": "cleaning pool",
    "torchvideo_high_jump.mp4": "high jump",
    "asl_book.mkv": "sign language interpreting",
}


def share_inside(heatmap: np.ndarray, label: str) -> float:
    """How much of a heatmap's mass lies in an animal's box."""
    left, top, right, bottom = BOXES[label]
    heat = np.nan_to_num(heatmap)
    return float(heat[top:bottom, left:right].sum() / heat.sum())


def centre_window(model: Classifier, path: Path) -> Sample:
    """The window in the middle of a clip; the whole of a shorter one."""
    assert model.window is not None
    with open_clip(path) as clip:
        length = min(model.window.length(clip.fps), clip.frames)
        first = (clip.frames - length) / 2
        return sample_window(clip, (first, first + length), model.window)


@pytest.fixture(scope="module")
def x3d(assets: Path) -> Classifier:
    model = mmcam.load(assets / "video/x3d_xs_kinetics400")
    assert isinstance(model, Classifier)
    return model


@pytest.mark.parametrize("network", ["mobilenetv2_imagenet", "squeezenet_imagenet"])
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "guided-gradcam"])
def test_each_animals_box_has_more_of_its_own_map(assets: Path, network: str, method: str) -> None:
    model = mmcam.load(assets / "image" / network)
    photo = assets / "image/photos/cat_dog.jpg"
    maps = mmcam.explain(model, photo, mmcam.Classes(list(BOXES)), method=method)
    for own, other in [("boxer", "tiger cat"), ("tiger cat", "boxer")]:
        assert share_inside(maps[own].heatmap(), own) > share_inside(maps[other].heatmap(), own)


@pytest.mark.parametrize(
    ("network", "accuracy", "tolerance"),
    # 91 % and 65 % on 250 photos, of which these are 100: within two standard errors of 100.
    [("mobilenetv2_imagenet", 0.91, 0.06), ("squeezenet_imagenet", 0.65, 0.10)],
)
def test_the_networks_have_their_published_accuracy(
    assets: Path, network: str, accuracy: float, tolerance: float
) -> None:
    model = mmcam.load(assets / "image" / network)
    assert isinstance(model, Classifier)
    correct = []
    for photo in sorted((assets / "image/imagenet_sample").glob("*.JPEG")):
        inputs = model.prepare([read_image(photo)], mmcam.Classes())
        with untouched(model.model), torch.no_grad():
            best = int(model.logits(model.forward(inputs))[0].argmax())
        label = model.labels[best].lower().replace("-", " ")
        correct.append(
            label == photo.stem.partition("_")[2].lower().replace("_", " ").replace("-", " ")
        )
    assert len(correct) == 100
    assert abs(np.mean(correct) - accuracy) <= tolerance


@pytest.mark.parametrize(("name", "action"), ACTIONS.items())
def test_each_clip_has_its_published_action(
    assets: Path, x3d: Classifier, name: str, action: str
) -> None:
    maps = mmcam.explain(x3d, assets / "video/clips" / name, mmcam.Actions())
    assert [explanation.label for explanation in maps] == [action]
    assert not maps[0].empty


@pytest.mark.parametrize(
    ("name", "probability"),
    [
        ("flipping_a_pancake.mkv", 1.000),
        ("mmaction_arm_wrestling.mp4", 1.000),
        ("mmaction_cleaning_pool.mp4", 0.998),
        ("torchvideo_high_jump.mp4", 0.996),
        ("asl_book.mkv", 0.893),
    ],
)
def test_the_window_in_the_middle_has_the_published_probability(
    assets: Path, x3d: Classifier, name: str, probability: float
) -> None:
    sample = centre_window(x3d, assets / "video/clips" / name)
    plan = Plan.of(["gradcam"], guided=False)
    result = explain_samples(x3d, [sample], mmcam.Actions([ACTIONS[name]]), plan)[0]
    # Sampling the middle or the first frame of each stride makes a smaller difference.
    assert result.explanations[0].probability == pytest.approx(probability, abs=0.02)


@pytest.mark.parametrize(("name", "action"), ACTIONS.items())
def test_deleting_the_top_fifth_hurts_more_than_deleting_another_fifth(
    assets: Path, x3d: Classifier, name: str, action: str
) -> None:
    """The same hole at random offsets, wrapped around the edges, so that only its place differs."""
    sample = centre_window(x3d, assets / "video/clips" / name)
    task = mmcam.Actions([action])
    result = explain_samples(x3d, [sample], task, Plan.of(["gradcam"], guided=False))[0]
    explanation = result.explanations[0]
    pixels = x3d.prepare([sample], task).pixels
    heat = resize(explanation.cam[None], pixels.shape[2:])[0]
    top = heat >= heat.flatten().topk(heat.numel() // 5).values[-1]
    random = torch.Generator().manual_seed(0)
    shifts = [
        [int(torch.randint(length, (1,), generator=random)) for length in top.shape]
        for _ in range(10)
    ]

    def score(hole: torch.Tensor) -> float:
        with untouched(x3d.model), torch.no_grad():
            logits = x3d.model(torch.where(hole, 0.0, pixels))
        return float(explanation.target.score(logits)[0])

    elsewhere = [score(top.roll(shift, (0, 1, 2))) for shift in shifts]
    assert score(top) < np.mean(elsewhere) < explanation.score


def test_the_command_line_writes_a_clip_of_the_full_length(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = assets / "video/clips/mmaction_cleaning_pool_32f.mp4"
    folder = str(assets / "video/x3d_xs_kinetics400")
    command = ["mmcam", "action", str(source), "--model", folder, "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    with open_clip(source) as before, open_clip(tmp_path / "clip-cleaning-pool.mp4") as after:
        assert after.frames == before.frames == 32
        assert after.fps == pytest.approx(before.fps, rel=1e-3)
        assert after.height >= before.height
        assert after.width >= 3 * before.width
        frames = list(after)
    # The first pane is the source itself, so the clip decodes and plays in step.
    assert len(frames) == 32


def test_one_label_over_all_stages_is_one_sheet_from_one_forward(
    assets: Path, tmp_path: Path
) -> None:
    """IJCV Figures 13 and 22."""
    model = mmcam.load(assets / "image/squeezenet_imagenet")
    calls = []
    handle = model.model.register_forward_hook(lambda *_: calls.append(1))
    photo = assets / "image/photos/cat_dog.jpg"
    layers = ["features.*", "features"]
    maps = mmcam.explain(model, photo, mmcam.Classes(["tiger cat"]), layers=layers)
    assert len(calls) == 2  # once more to find where the layers' cells lie
    again = mmcam.explain(model, photo, mmcam.Classes(["tiger cat"]), layers=layers)
    handle.remove()
    assert len(calls) == 3
    assert all((a.cam == b.cam).all() for a, b in zip(maps, again, strict=True))
    assert len(maps) == len({explanation.layer for explanation in maps}) == 14
    assert (tmp_path / "sheet.png") in maps.save(tmp_path)


CAPTIONS = {
    "flickr8k_test/images/3385593926_d3e9c21170.jpg": (
        "two dogs are running through the grass",
        -6.2893,
    ),
    "flickr8k_test/images/2677656448_6b7e7702af.jpg": (
        "a dog is running through the snow",
        -6.9188,
    ),
    "flickr8k_test/images/241347760_d44c8d3a01.jpg": (
        "a football player in a red uniform is running in the grass",
        -14.8551,
    ),
    "flickr8k_test/images/2654514044_a70a6e2c21.jpg": ("a dog runs through the grass", -5.6056),
    "photos/cat_dog.jpg": ("a dog is running through the grass", -8.0297),
}
"""Photo -> the captioner's caption and its log-probability, by its README."""


@pytest.fixture(scope="module")
def show_and_tell(assets: Path) -> Adapter:
    return mmcam.load(assets / "image/show_and_tell_flickr8k")


@pytest.mark.parametrize("photo", CAPTIONS)
def test_captions_equal_those_of_the_readme(
    show_and_tell: Adapter, assets: Path, photo: str
) -> None:
    caption, log_prob = CAPTIONS[photo]
    maps = mmcam.explain(show_and_tell, assets / "image" / photo, mmcam.Caption())
    assert maps.text is not None
    assert maps.text["caption"] == caption
    assert maps.text["generated"]
    assert maps.text["ended"]
    assert maps[0].score == pytest.approx(log_prob, abs=1e-3)
    assert [e.label for e in maps][1:] == caption.split()
    end = maps.text["token_log_probs"][-1]
    words = sum(word["log_prob"] for word in maps.text["words"])
    assert words + end == pytest.approx(maps[0].score, abs=1e-4)


def test_a_forced_word_of_a_real_captioner(
    assets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = str(assets / "image/photos/cat_dog.jpg")
    model = str(assets / "image/show_and_tell_flickr8k")
    options = ["--text", "a brown dog runs", "--word", "dog", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["mmcam", "caption", photo, "--model", model, *options])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "dog" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        "explanation.json", "maps.safetensors", "overlay-sentence.png", "overlay-02-dog.png",
        "sheet.png", "index.html",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["mobilenetv2_imagenet", "efficientnet_lite0_imagenet"])
def test_maps_lie_better_on_the_animals_than_if_spread_evenly(assets: Path, name: str) -> None:
    """Networks whose padding shifts the cells; SqueezeNet's hardly move."""
    model = mmcam.load(assets / "image" / name)
    boxes = {"boxer": (221, 27, 471, 316), "tiger cat": (128, 257, 571, 480)}
    maps = mmcam.explain(model, assets / "image/photos/cat_dog.jpg", mmcam.Classes(list(boxes)))
    inside = {"traced": 0.0, "even": 0.0}
    for label, (left, top, right, bottom) in boxes.items():
        explanation = maps[label]
        assert explanation.placement.extent
        even = replace(explanation, placement=replace(explanation.placement, extent=()))
        for place, item in (("traced", explanation), ("even", even)):
            heatmap = np.nan_to_num(item.heatmap())
            inside[place] += heatmap[top:bottom, left:right].sum() / heatmap.sum()
    assert inside["traced"] > inside["even"]
