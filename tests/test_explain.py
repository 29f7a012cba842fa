from __future__ import annotations

from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.errors import (
    InputError,
    LabelError,
    LayerError,
    MethodError,
    MmcamError,
    ModelError,
    ScoreError,
)
from mmcam.grids import resize
from mmcam.media import ClipWriter, open_clip, write_image
from mmcam.methods.cams import Moments, grad_cam_plus_plus_softmax
from tests import colour_net

RED = mmcam.Classes(["red"])
MOVES = mmcam.Actions(["red moves"])
CAT = mmcam.Classes(["cat"])
ASKED = mmcam.Classes(["cat", "dog"])


class Tiny(nn.Module):
    """A seeded network of pictures."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.trunk = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
        self.head = nn.Linear(5, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = 100 * self.head(self.trunk(self.first(pixels)).flatten(2).mean(2))
        return logits


def tiny(layer: str | None = "trunk") -> Classifier:
    recipe = Preprocess(crop=(8, 12))
    return mmcam.wrap(Tiny(), prepare=recipe, layer=layer, labels=["cat", "dog", "owl"])


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user: the types of arguments are not checked before the function runs."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("kind", ["path", "text", "image", "array", "floats", "sample"])
def test_a_picture_may_be_given_in_many_ways(tmp_path: Path, kind: str) -> None:
    pixels = noise(10, 14)
    path = tmp_path / "photo.png"
    write_image(path, pixels)
    source = {
        "path": path,
        "text": str(path),
        "image": Image.fromarray(pixels),
        "array": pixels,
        "floats": pixels.astype(np.float64) / 255,
        "sample": mmcam.Sample(pixels=pixels, id="mine"),
    }[kind]
    maps = mmcam.explain(tiny(), source, ASKED)
    expected = mmcam.explain(tiny(), pixels, ASKED)
    torch.testing.assert_close(maps["dog"].cam, expected["dog"].cam)
    assert maps["dog"].heatmap().shape == (10, 14)
    file = str(path) if kind in ("path", "text") else {"image": "image", "sample": "mine"}.get(kind)
    assert maps.source.path == (file or "array")


@pytest.mark.parametrize("kind", ["path", "folder", "array", "clip", "sample"])
def test_a_clip_may_be_given_in_many_ways(tmp_path: Path, kind: str) -> None:
    pixels = np.stack([colour_net.scene({"red": (0.3 + 0.1 * n, 0.5)}) for n in range(3)])[
        :, ::2, ::2
    ]
    with ClipWriter(tmp_path / "clip.mp4", 25, *pixels.shape[1:3]) as writer:
        for frame in pixels:
            writer.write(frame)
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(pixels):
        write_image(tmp_path / "frames" / f"{number}.png", frame)
    source = {
        "path": tmp_path / "clip.mp4",
        "folder": str(tmp_path / "frames"),
        "array": pixels,
        "clip": open_clip(pixels),
        "sample": mmcam.Sample(pixels=pixels, id="mine"),
    }[kind]
    maps = mmcam.explain(colour_net.model(clips=True), source, MOVES)
    expected = mmcam.explain(colour_net.model(clips=True), pixels, MOVES)
    loss = 0.1 * expected[0].maximum if kind == "path" else 1e-6
    torch.testing.assert_close(maps[0].cam, expected[0].cam, atol=loss, rtol=0)
    assert maps[0].heatmap().shape == (3, 120, 160)
    path = {"path": tmp_path / "clip.mp4", "folder": tmp_path / "frames", "sample": "mine"}
    assert maps.source.path == str(path.get(kind, "array"))
    maps.save(tmp_path / "out", panes=["overlay"])


def test_an_open_clip_stays_open() -> None:
    with open_clip(noise(4, 48, 64)) as clip:
        mmcam.explain(colour_net.model(clips=True), clip, MOVES)
        assert clip.read([0]).shape == (1, 48, 64, 3)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_list_of_pictures_is_explained_like_each_alone(batch: int) -> None:
    sources = [noise(10, 14, seed=0), noise(20, 13, seed=1), noise(9, 30, seed=2)]
    methods = ["gradcam", "gradcam++", "gradient"]
    results = mmcam.explain(tiny(), sources, ASKED, method=methods, guided=True, batch=batch)
    assert len(results) == 3
    for batched, source in zip(results, sources, strict=True):
        alone = mmcam.explain(tiny(), source, ASKED, method=methods, guided=True)
        assert [(e.label, e.method) for e in batched] == [(e.label, e.method) for e in alone]
        for batched_map, single_map in zip(batched, alone, strict=True):
            torch.testing.assert_close(batched_map.cam, single_map.cam)
            assert batched_map.score == pytest.approx(single_map.score, rel=1e-5)
            assert batched_map.heatmap().shape == source.shape[:2]


def test_each_picture_of_a_list_has_its_own_top_classes() -> None:
    sources = [
        np.broadcast_to(np.uint8(colour_net.COLOURS[name]), (32, 32, 3)).copy()
        for name in ("blue", "red")
    ]
    results = mmcam.explain(colour_net.model(clips=False), sources, mmcam.Classes())
    assert [maps[0].label for maps in results] == ["blue", "red"]


def test_a_list_of_clips_gives_a_list() -> None:
    results = mmcam.explain(
        colour_net.model(clips=True), [noise(2, 48, 64), noise(20, 48, 64)], MOVES
    )
    assert [maps[0].frame_count for maps in results] == [2, 20]


def test_no_sources_give_no_results() -> None:
    assert mmcam.explain(tiny(), [], ASKED) == []


@pytest.mark.parametrize("as_list", [False, True])
def test_targets_of_ones_own_are_a_task(as_list: bool) -> None:
    contrast = mmcam.Target(
        label="cat, not dog", score=lambda z: z[:, 0] - z[:, 1], kind="contrast"
    )
    maps = mmcam.explain(tiny(), noise(8, 12), [contrast] if as_list else contrast,
                          method="gradcam-signed")  # fmt: skip
    cat, dog = mmcam.explain(tiny(), noise(8, 12), ASKED, method="gradcam-signed")
    torch.testing.assert_close(maps["cat, not dog"].cam, cat.cam - dog.cam)
    assert maps[0].score == pytest.approx(cat.score - dog.score, rel=1e-4)
    assert maps[0].probability is None
    assert maps.task == "targets"


def test_logit_targets_are_the_models_own_classes() -> None:
    (own,) = mmcam.explain(tiny(), noise(8, 12), mmcam.Target.logit(1))
    named = mmcam.explain(tiny(), noise(8, 12), ASKED)["dog"]
    assert (own.label, own.probability) == ("1", pytest.approx(named.probability))
    torch.testing.assert_close(own.cam, named.cam)


def test_probabilities_are_the_softmax_of_the_scores() -> None:
    maps = mmcam.explain(tiny(), noise(8, 12), mmcam.Classes(top=3))
    scores = torch.tensor([explanation.score for explanation in maps])
    expected = scores.softmax(0).tolist()
    assert [explanation.probability for explanation in maps] == pytest.approx(expected, abs=1e-5)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)


def test_counterfactual_maps_are_evidence_against_the_score() -> None:
    methods = ["gradcam-signed", "gradient"]
    plain = mmcam.explain(tiny(), noise(8, 12), ASKED, method=methods)
    against = mmcam.explain(tiny(), noise(8, 12), ASKED, method=methods, counterfactual=True)
    for plain_map, counter_map in zip(plain, against, strict=True):
        torch.testing.assert_close(plain_map.cam, -counter_map.cam)
        assert plain_map.cam.any()
        assert (plain_map.score, plain_map.probability) == (
            counter_map.score,
            counter_map.probability,
        )
        assert (plain_map.counterfactual, counter_map.counterfactual) == (False, True)


def test_guided_maps_are_the_product_with_the_pixel_map() -> None:
    maps = mmcam.explain(tiny(), noise(8, 12), ASKED, method=["hirescam", "guided"], guided=True)
    assert [e.method for e in maps[:3]] == ["hirescam", "guided", "guided-hirescam"]
    for label in ("cat", "dog"):
        cam, pixels, product = (e.cam for e in maps.select(label))
        extent = maps.select(label)[0].placement.extent
        assert extent
        grown = resize(cam[None], (8, 12), extent)
        torch.testing.assert_close(product, pixels * grown)
        assert pixels.any()


def test_results_contain_labels_and_their_own_explanations() -> None:
    maps, others = (mmcam.explain(tiny(), noise(8, 12), ASKED) for _ in range(2))
    assert "dog" in maps
    assert "owl" not in maps
    assert maps[1] in maps
    assert others[1] not in maps
    assert 0 not in maps


def test_a_label_with_several_maps_is_chosen_by_method_and_layer() -> None:
    maps = mmcam.explain(
        tiny(), noise(8, 12), ASKED, method=["gradcam", "layercam"], layers=["first", "trunk"]
    )
    with pytest.raises(LabelError, match=r"'dog' has 4 maps .* choose with select\("):
        maps["dog"]
    (explanation,) = maps.select("dog", "layercam", "first")
    assert (explanation.label, explanation.method, explanation.layer) == (
        "dog",
        "layercam",
        "first",
    )
    assert explanation.cam.shape == (8, 12)
    assert len(maps.select("dog", layer="trunk")) == 2


def test_layers_may_be_patterns_and_are_found_where_none_is_named() -> None:
    maps = mmcam.explain(tiny(), noise(8, 12), CAT, layers="*.0")
    assert [explanation.layer for explanation in maps] == ["first.0", "trunk.0"]
    (explanation,) = mmcam.explain(tiny(layer=None), noise(8, 12), CAT)
    assert explanation.layer == "trunk"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (noise(3, 48, 64), r"'array' is a clip and .* choose a video model"),
        (mmcam.Sample(pixels=noise(3, 48, 64), id="mine"), r"'mine' is a clip and .* choose"),
        ("clip.mp4", r"clip.mp4.*mmcam action"),
        (Path("frames"), r"'frames' is a clip and .* choose a video model"),
        (Path("none.png"), r"none.png: there is no such file; check the path"),
        (5, r"int: not a picture that can be read; give a path"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_model_of_pictures_refuses_what_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("frames").mkdir()
    with ClipWriter("clip.mp4", 25, 48, 64) as writer:
        writer.write(noise(48, 64))
    with pytest.raises(InputError, match=message):
        mmcam.explain(colour_net.model(clips=False), source, RED)


def test_a_model_of_pictures_refuses_an_open_clip(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", noise(48, 64))
    with open_clip(tmp_path) as clip, pytest.raises(InputError, match=rf"'{tmp_path}' is a clip"):
        mmcam.explain(colour_net.model(clips=False), clip, RED)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (noise(48, 64), r"array: uint8 \[48, 64, 3\] is not a clip; give uint8 \[t h w 3\]"),
        (mmcam.Sample(pixels=noise(48, 64)), r"\[48, 64, 3\] is not a clip; give"),
        (Image.fromarray(noise(48, 64)), r"Image: not a clip that can be read; give a video"),
        (Path("none.mp4"), r"none.mp4: there is no such file; check the path"),
        (None, r"NoneType: not a clip"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_model_of_clips_refuses_what_is_none(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mmcam.explain(colour_net.model(clips=True), source, MOVES)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "gradcma"}, MethodError, r"no method 'gradcma'; nearest: gradcam.*mmcam list"),
        ({"method": "guided-gradcma"}, MethodError, r"'guided-gradcma'; nearest: guided-gradcam"),
        ({"method": []}, MethodError, "list of methods is empty; name one"),
        ({"layers": "trnk"}, LayerError, r"no layer 'trnk'; nearest: trunk.*mmcam list layers"),
        ({"layers": []}, LayerError, "list of layers is empty; name one"),
        (
            {"layers": "head"},
            LayerError,
            r"'head' returns .*\(1, 3\).*no grid.*name a layer before",
        ),
        ({"batch": 0}, InputError, r"batch=0: it must be 1 or more"),
        ({"batch": -3}, InputError, r"batch=-3"),
    ],
)
def test_bad_options_are_told_with_a_remedy(
    options: dict[str, Any], error: type[MmcamError], message: str
) -> None:
    with pytest.raises(error, match=message):
        mmcam.explain(tiny(), noise(8, 12), ASKED, **options)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["dgo"], r"Tiny has no label 'dgo'; nearest: dog"),
        ([3], r"no label '3'"),
        ([-1], r"no label '-1'"),
        ([], r"no labels to explain in \[\]; name some"),
    ],
)
def test_unknown_labels_are_told_with_a_remedy(labels: list[str | int], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        mmcam.explain(tiny(), noise(8, 12), mmcam.Classes(labels))


@pytest.mark.parametrize("top", [0, 4])
def test_top_must_be_a_number_of_classes(top: int) -> None:
    with pytest.raises(LabelError, match=rf"top={top}"):
        mmcam.explain(tiny(), noise(8, 12), mmcam.Classes(top=top))


@pytest.mark.parametrize("task", [[], "dog", ["dog"], (mmcam.Target.logit(0), "dog")])
def test_what_is_no_task_is_told(task: Any) -> None:
    with pytest.raises(LabelError, match=r"is not a task; give .*Classes\("):
        mmcam.explain(tiny(), noise(8, 12), task)


def test_actions_are_not_asked_of_a_model_of_pictures() -> None:
    with pytest.raises(ModelError, match=r"Tiny is an image model .* choose a video model"):
        mmcam.explain(tiny(), noise(8, 12), mmcam.Actions(["dog"]))


@pytest.mark.parametrize("part", ["first.0.weight", "head.weight"])
def test_broken_weights_are_told(part: str) -> None:
    model = tiny()
    with torch.no_grad():
        model.model.get_parameter(part).view(-1)[0] = torch.nan
    with pytest.raises(
        LayerError, match=r"'trunk' of Tiny has NaN or infinite .*check the weights"
    ):
        mmcam.explain(model, noise(8, 12), ASKED)


@pytest.mark.parametrize("method", ["gradcam", "gradient", "guided", "occlusion", "scorecam"])
@pytest.mark.parametrize("part", ["first.0.weight", "head.weight", "head.bias"])
def test_no_method_lets_values_pass_that_are_no_numbers(part: str, method: str) -> None:
    model = tiny()
    with torch.no_grad():
        model.model.get_parameter(part).view(-1)[:] = torch.nan
    with pytest.raises(mmcam.MmcamError, match=r"NaN or infinite.*check"):
        mmcam.explain(model, noise(8, 12), ASKED, method=method)


@pytest.mark.parametrize(
    "score",
    [lambda out: out, lambda out: out.sum(), lambda out: out[:, 9], lambda out: 1.0],
    ids=["one a class", "one for all", "no such class", "no tensor"],
)
def test_a_score_of_the_wrong_form_is_told(score: Any) -> None:
    with pytest.raises(ScoreError, match=r"score of 'mine' .*fix Target\.score"):
        mmcam.explain(tiny(), noise(8, 12), mmcam.Target(label="mine", score=score))


def test_an_input_that_the_model_cannot_run_on_is_told() -> None:
    model = mmcam.wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 5), torch.nn.Flatten()), small())
    with pytest.raises(ModelError, match=r"Sequential failed on an input of shape \(1, 3, 2, 2\)"):
        mmcam.explain(model, noise(8, 12), mmcam.Classes([0]), layers=["0"])


def small() -> Preprocess:
    return Preprocess(resize=(2, 2), mean=(0, 0, 0), std=(1, 1, 1))


@pytest.mark.parametrize("method", ["gradient", "guided", "occlusion", "guided-occlusion"])
def test_maps_of_the_pixels_need_no_layer(method: str) -> None:
    """A network without any layer with a grid can still be explained at its pixels."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
    maps = mmcam.explain(mmcam.wrap(module, small()), noise(8, 12), CATS, method=method)
    assert maps[0].saliency.abs().max() > 0


def test_the_counterfactual_of_the_softmax_form_negates_the_probability() -> None:
    """Alpha is the same (WACV eq. 10); the weights take the negative part of dY/dA (eq. 5)."""
    activation, gradient = torch.rand(1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    moments = Moments(*torch.rand(3, 1, 3, 2, 2))
    positive, negative = (
        grad_cam_plus_plus_softmax(activation, gradient, moments, s) for s in (1, -1)
    )
    assert not torch.allclose(positive, negative)
    sample = noise(8, 12)
    # With two classes, the gradients of their probabilities are opposite: evidence against the
    # first is evidence for the second.
    two = mmcam.wrap(TwoClasses(Tiny()), small_as_given(), layer="net.trunk")
    against = mmcam.explain(two, sample, CATS, method="gradcam++softmax", counterfactual=True)
    second = mmcam.explain(two, sample, mmcam.Classes([1]), method="gradcam++softmax")
    shares = [maps[0].cam / maps[0].maximum for maps in (against, second)]
    torch.testing.assert_close(*shares, rtol=1e-3, atol=1e-4)


CATS = mmcam.Classes([0])


class TwoClasses(nn.Module):
    """The first two logits of a network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.net(pixels)[:, :2] / 100
        return logits


def small_as_given() -> Preprocess:
    return Preprocess(mean=(0, 0, 0), std=(1, 1, 1))
