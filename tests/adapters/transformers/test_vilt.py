"""ViLT's answers: logits, the order of its patches, padding, gradients, words, errors."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import mmcam
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.transformers.vilt import ViltAdapter
from mmcam.capture.layers import tapped
from mmcam.capture.recording import capture
from mmcam.engine.pictures import explain_samples
from mmcam.errors import InputError, LabelError, LayerError, ModelError, WeightsError
from mmcam.methods.plan import Plan
from mmcam.models.registry import build, load
from mmcam.tasks import Answers, Caption
from mmcam.types import Inputs, Sample
from tests.adapters.tiny_generative import VILT, folder, picture
from tests.adapters.tiny_generative_models import ANSWERS, VISION
from tests.snapshots import assert_as_found, snapshot

QUESTION = "what does the dog describe ?"
WIDE = (40, 60)
"""A picture of 4 x 6 patches."""


@cache
def vilt() -> ViltAdapter:
    adapter = load(f"hf:{folder(VILT)}")
    assert isinstance(adapter, ViltAdapter)
    adapter.model.eval()
    return adapter


@cache
def processor() -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder(VILT))


def logits_of(model: Any, *samples: Sample) -> Tensor:
    """The logits of the model's own forward on its own processor's inputs, without mmcam."""
    arguments = processor()(
        images=[Image.fromarray(sample.pixels) for sample in samples],
        text=[sample.text or QUESTION for sample in samples],
        return_tensors="pt",
        padding=True,
    )
    with torch.no_grad():
        logits: Tensor = model(**arguments).logits
    return logits


def prepared(adapter: ViltAdapter, *samples: Sample, **task: Any) -> Inputs:
    return adapter.prepare(samples, Answers(**{"question": QUESTION, **task}))


@pytest.mark.parametrize("size", [(48, 40), WIDE, (90, 40)])
def test_answers_have_the_models_own_logits(size: tuple[int, int]) -> None:
    sample = picture(size)
    logits = logits_of(vilt().model, sample)[0]
    task = Answers(QUESTION, ["Red", "two", "yellow and red", "two"], contrast=("red", "two"))
    maps = mmcam.explain(vilt(), sample, task)
    assert [e.label for e in maps] == ["red", "two", "yellow and red", "red rather than two"]
    for label in ("red", "two", "yellow and red"):
        logit = float(logits[ANSWERS.index(label)])
        assert maps[label].score == pytest.approx(logit, abs=1e-4)
        # The model is trained with an independent loss for each answer.
        assert maps[label].probability == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
    assert maps[3].score == pytest.approx(float(logits[0] - logits[3]), abs=1e-4)
    top = mmcam.explain(vilt(), sample, Answers(QUESTION, top=5))
    assert [e.label for e in top] == [ANSWERS[i] for i in logits.argsort(descending=True)]
    assert top.text is not None
    best = top.text["top"][0]
    assert best["answer"] == top[0].label
    assert best["probability"] == pytest.approx(top[0].probability)


@pytest.mark.parametrize("size", [(48, 40), WIDE, (90, 40)])
def test_a_lit_patch_lights_its_own_cell(size: tuple[int, int]) -> None:
    """From the original through the processor to the patches, two blocks and the default layer."""
    adapter = replace(vilt(), model=copy.deepcopy(vilt().model))
    for name, parameter in adapter.model.named_parameters():
        if "attention" in name:
            parameter.data *= 0.01  # hardly mixes the positions
    layers = [VILT.layer, "vilt.embeddings", "vilt.encoder.layer.0", adapter.layers[0]]
    height, width = (4 * side for side in size)
    dark = picture((height, width)).pixels // 4

    def layer_grids(pixels: Any) -> tuple[list[Tensor], Inputs]:
        inputs = prepared(adapter, Sample(pixels=pixels))
        with capture(adapter.model, layers) as (recording, check):
            adapter.forward(inputs)
            check()
        return [
            adapter.grid(layer, recording.activation(layer), inputs)[0] for layer in layers
        ], inputs

    before, inputs = layer_grids(dark)
    assert inputs.placements[0].box == (0, 0, width, height)
    rows, columns = before[0].shape[1:]
    assert (rows, columns) == tuple(side // 8 for side in inputs.pixels.shape[2:])
    tall, wide = height / rows, width / columns
    rng = np.random.default_rng(0)
    for _ in range(4):
        y, x = rng.integers(rows), rng.integers(columns)
        pixels = dark.copy()
        pixels[round(y * tall) : round((y + 1) * tall), round(x * wide) : round((x + 1) * wide)] = (
            255
        )
        after, _ = layer_grids(pixels)
        for layer, dark_grid, lit_grid in zip(layers, before, after, strict=True):
            change = (lit_grid - dark_grid).abs().sum(0)
            assert change.argmax() == y * columns + x, layer


def test_patches_are_in_raster_order_though_the_model_samples_them() -> None:
    """The model's own order is random; the adapter's is fixed, with the same logits."""
    adapter, layer = vilt(), "vilt.encoder.layer.0"
    inputs = prepared(adapter, picture(WIDE))

    def states(ordered: bool) -> Tensor:
        with capture(adapter.model, [layer]) as (recording, check):
            model: Any = adapter.model
            if ordered:
                adapter.forward(inputs)
            else:
                ids = inputs.rest["question_0"]
                model(ids, pixel_values=inputs.pixels, pixel_mask=inputs.rest["pixel_mask"])
            check()
        return recording.activation(layer)[0]

    torch.manual_seed(0)
    random_states = states(False)
    torch.manual_seed(1)
    assert not torch.allclose(random_states, states(False), atol=1e-4)
    random = torch.get_rng_state()
    torch.testing.assert_close(states(True), states(True), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_model_that_samples_some_patches_only() -> None:
    """The sampled patches are evenly spaced; the cells of the others are zero."""
    adapter = replace(vilt(), model=copy.deepcopy(vilt().model))
    adapter.model.config.max_image_length = 12  # type: ignore[union-attr]
    inputs = prepared(adapter, picture(WIDE))
    layer = adapter.layers[0]
    with capture(adapter.model, [layer]) as (recording, check):
        adapter.forward(inputs)
        check()
    grid = adapter.grid(layer, recording.activation(layer), inputs)[0]
    assert grid.shape[1:] == (4, 6)
    used = grid.abs().sum(0) > 0
    assert used.tolist() == [[True, False] * 3] * 4


def test_pictures_of_a_batch_do_not_depend_on_each_other() -> None:
    """Questions of different length; pictures of different proportions cannot be one batch."""
    questions = (QUESTION, "the dog ?", "what does the red ball describe in the snow ?")
    samples = [replace(picture(WIDE, i), text=q) for i, q in enumerate(questions)]
    plan, task = Plan.of(["gradcam-signed"], False), Answers(answers=["red", "two"])
    logits = logits_of(vilt().model, *samples)
    together = explain_samples(vilt(), samples, task, plan)
    for row, (sample, result) in enumerate(zip(samples, together, strict=True)):
        (alone,) = explain_samples(vilt(), [sample], task, plan)
        pairs = zip(result.explanations, alone.explanations, (0, 3), strict=True)
        for first, second, index in pairs:
            assert first.score == pytest.approx(second.score, abs=1e-4)
            assert first.score == pytest.approx(float(logits[row, index]), abs=1e-4)
            assert [text for text, _ in first.words] == [text for text, _ in second.words]
            parts = [[part for _, part in e.words] for e in (first, second)]
            assert parts[0] == pytest.approx(parts[1], abs=1e-4)
            torch.testing.assert_close(first.cam, second.cam, rtol=1e-3, atol=1e-5)
    mixed = [samples[0], replace(picture((80, 40)), text=QUESTION)]
    assert vilt().batch == 1
    assert len(mmcam.explain(vilt(), [sample.pixels for sample in mixed], Answers(QUESTION))) == 2
    with pytest.raises(InputError, match=r"different sizes .* one by one"):
        vilt().prepare(mixed, task)
    alone = [mmcam.explain(vilt(), sample, task) for sample in mixed]
    for maps, expected in zip(mmcam.explain(vilt(), mixed, task, batch=2), alone, strict=True):
        torch.testing.assert_close(maps[0].cam, expected[0].cam, rtol=1e-3, atol=1e-5)


def test_gradients_and_parts_of_words_are_those_of_finite_differences() -> None:
    adapter = replace(vilt(), model=copy.deepcopy(vilt().model).double())
    task = Answers(QUESTION, ["red", "yellow and red"], contrast=("red", "two"))
    inputs = adapter.prepare([picture(WIDE)], task)
    layers = [adapter.layers[0], adapter.word_embedding]
    with capture(adapter.model, [str(layer) for layer in layers]) as (recording, check):
        output = adapter.forward(inputs)
        check()
        targets = adapter.targets(output, task)
        steps = list(recording.gradients(recording.scores(output, targets)))

    def scored(layer: str, change: Tensor, step: float) -> Tensor:
        with torch.no_grad(), tapped(adapter.model, [layer], lambda _, x: x + step * change):
            moved = adapter.forward(inputs)
        return torch.stack([target.score(moved)[0] for target in targets[0]])

    for layer in map(str, layers):
        change = torch.randn(recording.maps[layer].shape, dtype=torch.float64)
        slopes = (scored(layer, change, 1e-6) - scored(layer, change, -1e-6)) / 2e-6
        expected = torch.stack([(step[layer] * change).sum() for step in steps])
        assert slopes.abs().min() > 1e-6
        torch.testing.assert_close(slopes, expected, rtol=1e-5, atol=1e-7)
    maps = mmcam.explain(adapter, picture(WIDE), task)
    embedded = recording.activation(str(layers[1]))[0]
    for explanation, step in zip(maps, steps, strict=True):
        parts = (step[str(layers[1])][0] * embedded).sum(1)[1:-1]  # without the special tokens
        assert [text for text, _ in explanation.words] == QUESTION.split()
        assert [part for _, part in explanation.words] == pytest.approx(parts.tolist())


@pytest.mark.parametrize("method", ["gradcam", "guided-gradcam", "ablationcam", "occlusion"])
def test_the_model_is_left_as_found(method: str) -> None:
    adapter = vilt()
    adapter.model.train()
    before, random = snapshot(adapter.model), torch.get_rng_state()
    try:
        if method == "guided-gradcam":  # the model has no ReLU
            with pytest.raises(mmcam.MmcamError, match="ran none"):
                mmcam.explain(adapter, picture(WIDE), Answers(QUESTION), method=method)
        else:
            maps = mmcam.explain(adapter, picture(WIDE), Answers(QUESTION), method=method)
            assert maps[0].cam.isfinite().all()
        assert_as_found(adapter.model, before)
        assert torch.equal(torch.get_rng_state(), random)
    finally:
        adapter.model.eval()


def test_a_long_question_is_read_as_far_as_the_model_has_positions(tmp_path: Path) -> None:
    long = " ".join(["what does the dog describe"] * 100)
    maps = mmcam.explain(vilt(), picture(WIDE), Answers(long, ["red"]))
    short = " ".join(long.split()[:22])
    expected = mmcam.explain(vilt(), picture(WIDE), Answers(short, ["red"]))
    assert maps.text is not None
    assert maps.text["unread_words"] == 478
    assert len(maps["red"].words) == 22
    assert maps["red"].score == pytest.approx(expected["red"].score)
    maps = mmcam.explain(vilt(), picture(WIDE), Answers("what does the zebra describe ?", ["red"]))
    maps.save(tmp_path)
    facts = json.loads((tmp_path / "explanation.json").read_text())
    assert facts["text"]["unknown_words"] == ["zebra"]
    assert [word["text"] for word in facts["targets"][0]["question_words"]][3] == "zebra"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Answers("\u200b"), r"no word of the question '\\u200b' is in the vocabulary"),
        (Answers("?"), r"no word of the question '\?' is in the vocabulary"),
        (Answers(" "), "is empty; ask something"),
        (
            Answers("\u043a\u0430\u043a\u043e\u0439 \u0446\u0432\u0435\u0442 ?"),
            "no word of the question",
        ),
        (Answers(QUESTION, ["rad"]), "no label 'rad'; nearest: red"),
        (Caption(), "answers questions"),
    ],
)
def test_tasks_that_are_not_supported_are_refused(task: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        mmcam.explain(vilt(), picture(WIDE), task)


def test_layers_and_clips_without_patches_are_refused() -> None:
    for layer in ("vilt.embeddings.text_embeddings", "vilt.embeddings.text_embeddings.LayerNorm"):
        with pytest.raises(LayerError, match="does not hold the 4 x 6 patches"):
            mmcam.explain(vilt(), picture(WIDE), Answers(QUESTION), layers=[layer])
    clip = Sample(pixels=np.zeros((4, 32, 32, 3), dtype=np.uint8), id="clip")
    with pytest.raises(InputError, match="'clip' is a clip"):
        vilt().prepare([clip], Answers(QUESTION))


def test_other_models_of_the_type_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder(VILT).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    headless = {key: value for key, value in state.items() if "classifier" not in key}
    save_file(headless, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="no weights for classifier"):
        load(f"hf:{tmp_path}")
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["ViltForMaskedLM"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is a ViltForMaskedLM, which answers no questions"):
        load(f"hf:{tmp_path}")


def test_an_untrained_type_needs_a_processor() -> None:
    args = {"processor": str(folder(VILT)), **VISION, "max_position_embeddings": 24}
    adapter = build(Recipe(family="hf", name="vilt", args=args, pretrained=False))
    assert isinstance(adapter, ViltAdapter)
    assert adapter.weights is None
    assert adapter.labels == ()
    assert mmcam.explain(adapter, picture(WIDE), Answers(QUESTION, ["1"]))[0].label == "1"
    with pytest.raises(ModelError, match=r"hf:vilt has no tokenizer"):
        load("hf:vilt", weights="random")
