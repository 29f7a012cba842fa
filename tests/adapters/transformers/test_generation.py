"""Captioners of transformers: scores, gradients, batches, prompts, and restored state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mmcam
from mmcam.adapters.transformers.generation import GenerativeAdapter
from mmcam.adapters.transformers.hooks import eager_attention
from mmcam.adapters.transformers.model_types import MODEL_TYPES
from mmcam.adapters.transformers.prompts import generation_config_of
from mmcam.capture.layers import tapped
from mmcam.capture.recording import capture
from mmcam.engine.pictures import explain_samples
from mmcam.errors import InputError, LabelError, LayerError
from mmcam.methods.plan import Plan
from mmcam.models.registry import load
from mmcam.results.explanation import Explanation
from mmcam.tasks import Caption
from mmcam.types import Sample
from tests.adapters.tiny_generative import (
    CASES,
    GIVEN,
    DoublePrecision,
    TinyModel,
    adapter_of,
    case_of,
    counted_runs,
    folder,
    in_double_precision,
    picture,
    prepared,
    reference_arguments,
)
from tests.snapshots import assert_as_found, snapshot

TASK = Caption(max_new_tokens=5)
all_cases = pytest.mark.parametrize("case", CASES, ids=str)
batch_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if not case.one_by_one], ids=str
)


def explained(
    adapter: Any,
    samples: Sequence[Sample],
    task: Caption = TASK,
    method: str = "gradcam",
    **options: Any,
) -> list[list[Explanation]]:
    plan = Plan.of([method], False)
    return [
        result.explanations for result in explain_samples(adapter, samples, task, plan, **options)
    ]


@contextmanager
def ending_at(adapter: GenerativeAdapter, token: int) -> Iterator[GenerativeAdapter]:
    """The adapter, and inside the context its model too, with another end token."""
    generation_config = generation_config_of(adapter.model, adapter.model_type)
    config: Any = adapter.model.config
    is_blip = config.model_type == "blip"
    original = config.text_config.sep_token_id if is_blip else generation_config.eos_token_id
    owner, key = (
        (config.text_config, "sep_token_id") if is_blip else (generation_config, "eos_token_id")
    )
    setattr(owner, key, token)
    try:
        yield replace(adapter, tokenizer=replace(adapter.tokenizer, end_tokens=(token,)))
    finally:
        setattr(owner, key, original)


@all_cases
def test_scores_are_those_of_generate(case: TinyModel) -> None:
    """Tokens and their log-probabilities, the end token included."""
    adapter, sample = adapter_of(case), picture(case.size)
    first = prepared(adapter, sample, TASK).rest["sentences"][0].tokens
    end = next(token for token in first[1:] if token != first[0])
    model: Any = adapter.model
    with ending_at(adapter, end) as ending_adapter:
        inputs = prepared(ending_adapter, sample, TASK)
        output = ending_adapter.forward(inputs)
        generated = model.generate(
            **reference_arguments(adapter, sample),
            max_new_tokens=8,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    (sentence,) = inputs.rest["sentences"]
    steps = len(sentence.tokens)
    assert 2 <= steps < len(first) + 1
    assert sentence.tokens[-1] == end
    tokens = generated.sequences[0, -len(generated.logits) :]
    logits = torch.stack(generated.logits, 1)[0]
    if case.name == "florence2":  # its first token is forced
        tokens, logits = tokens[1:], logits[1:]
    assert tokens.tolist() == list(sentence.tokens)
    expected = logits.log_softmax(1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(output.log_probs[0], expected, rtol=1e-4, atol=1e-4)
    assert ending_adapter.text(output, inputs)[0]["ended"]


@all_cases
def test_gradients_are_those_of_finite_differences(case: TinyModel) -> None:
    adapter = in_double_precision(adapter_of(case))
    inputs = prepared(adapter, picture(case.size), Caption(GIVEN, words=["dog"]))
    layer = adapter.layers[0]
    with DoublePrecision(), capture(adapter.model, [layer]) as (recording, check):
        output = adapter.forward(inputs)
        check()
        targets = adapter.targets(output, Caption(GIVEN, words=["dog"]))
        scores = recording.scores(output, targets)
        assert scores.shape == (2, 1)
        gradients = [step[layer] for step in recording.gradients(scores)]
        shape = recording.maps[layer].shape
    direction = torch.randn(shape, dtype=torch.float64)

    def score(step: float) -> Tensor:
        hook = tapped(adapter.model, [layer], lambda _, x: x + step * direction)
        with DoublePrecision(), torch.no_grad(), hook:
            moved = adapter.forward(inputs)
        return torch.stack([target.score(moved) for target in targets[0]])[:, 0]

    slope = (score(1e-6) - score(-1e-6)) / 2e-6
    expected = torch.stack([(gradient * direction).sum() for gradient in gradients])
    assert expected.abs().min() > 1e-6
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)


@all_cases
def test_all_strategies_give_the_same_maps(case: TinyModel) -> None:
    adapter = in_double_precision(adapter_of(case))
    for layers in (None, [case.layer]):
        maps = []
        for strategy in ("loop", "batched"):
            with DoublePrecision():
                maps.append(
                    explained(
                        replace(adapter, gradient_strategy=strategy),
                        [picture(case.size)],
                        Caption(GIVEN),
                        layers=layers,
                    )
                )
        looped, batched = maps
        assert any(first.cam.any() for first in looped[0])
        for first, second in zip(looped[0], batched[0], strict=True):
            torch.testing.assert_close(first.cam, second.cam, rtol=1e-5, atol=1e-7)


@all_cases
def test_the_encoder_runs_once(case: TinyModel) -> None:
    """Also with beam search; for a layer below, it runs a second time with the same result."""
    adapter = adapter_of(case)
    with counted_runs(adapter.model, case.layer) as runs:
        for task in (TASK, Caption(max_new_tokens=3, num_beams=2)):
            runs[0] = 0
            (explanations,) = explained(adapter, [picture(case.size)], task)
            assert runs[0] == 1
            caption = explanations[0].target.label
            (below,) = explained(adapter, [picture(case.size)], task, layers=[case.layer])
            assert runs[0] == 3
            assert below[0].target.label == caption
            assert below[0].score == pytest.approx(explanations[0].score, abs=1e-4)


@pytest.mark.parametrize("name", ["blip", "llava", "git"])
def test_attention_is_the_models_own(name: str) -> None:
    case = case_of(name)
    adapter = adapter_of(case)
    inputs = prepared(adapter, picture(case.size), Caption(GIVEN))
    output = adapter.teacher_force(
        replace(inputs, output_attentions=True), inputs.rest["sentences"]
    )
    assert output.attention is not None
    tokens = inputs.rest["sentences"][0].tokens
    prefix = inputs.rest["prompt_tokens"][0].prefix
    ids = torch.tensor([[*prefix, *tokens[:-1]]])
    model: Any = adapter.model
    with torch.no_grad(), eager_attention(model):
        if name == "blip":
            hidden = model.vision_model(inputs.pixels).last_hidden_state
            attentions = model.text_decoder(
                input_ids=ids, encoder_hidden_states=hidden, output_attentions=True
            ).cross_attentions
            columns = slice(1, None)
        else:
            attentions = model(
                input_ids=ids, pixel_values=inputs.pixels, output_attentions=True
            ).attentions
            image_positions = [
                i
                for i, token in enumerate(prefix)
                if token == getattr(model.config, "image_token_id", None)
            ]
            columns = (
                slice(1, 17)
                if name == "git"
                else slice(image_positions[0], image_positions[-1] + 1)
            )
    mean = torch.stack(list(attentions)).mean((0, 2))[0]
    expected = mean[-len(tokens) :, columns].view(len(tokens), 4, 4)
    torch.testing.assert_close(output.attention[0], expected)


@batch_cases
def test_pictures_of_a_batch_do_not_depend_on_each_other(case: TinyModel) -> None:
    adapter, samples = adapter_of(case), [picture(case.size, seed) for seed in range(3)]
    captioned = [replace(samples[0], text=GIVEN), samples[1], replace(samples[2], text="a dog")]
    for batch in (samples, captioned):
        together = explained(adapter, batch, TASK)
        for sample, batched in zip(batch, together, strict=True):
            (alone,) = explained(adapter, [sample], TASK)
            assert [e.label for e in batched] == [e.label for e in alone]
            for first, second in zip(batched, alone, strict=True):
                torch.testing.assert_close(first.cam, second.cam, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["llava_next", "qwen2_vl", "idefics3"])
def test_pictures_of_different_shapes_are_a_batch_for_each_shape(name: str) -> None:
    adapter = adapter_of(case_of(name))
    assert adapter.batch == 1
    samples = [picture((32, 96)), picture((64, 64)), picture((32, 96))]
    with pytest.raises(InputError, match=r"different shapes.*one by one"):
        adapter.prepare(samples, Caption(GIVEN))
    expected = [explained(adapter, [sample], Caption(GIVEN))[0] for sample in samples]
    for maps, others in zip(explained(adapter, samples, Caption(GIVEN)), expected, strict=True):
        for explanation, other in zip(maps, others, strict=True):
            assert explanation.score == pytest.approx(other.score, abs=1e-3)
            torch.testing.assert_close(explanation.cam, other.cam, rtol=1e-3, atol=1e-4)


@all_cases
def test_captions_may_be_blocks_of_the_pictures(case: TinyModel) -> None:
    """Two captions of one picture in one forward have the scores of each alone."""
    adapter = adapter_of(case)
    inputs = prepared(adapter, picture(case.size), Caption(GIVEN))
    first, second = (adapter.tokenizer.encode(text) for text in (GIVEN, "the snow"))
    with torch.no_grad():
        together = adapter.teacher_force(inputs, [first, second]).log_probs
        for row, sentence in enumerate((first, second)):
            (alone,) = adapter.teacher_force(inputs, [sentence]).log_probs
            torch.testing.assert_close(together[row, : len(alone)], alone, rtol=1e-4, atol=1e-4)
            assert not together[row, len(alone) :].any()


@batch_cases
def test_prompts_of_different_length_are_one_batch(case: TinyModel) -> None:
    adapter = adapter_of(case)
    if not adapter.model_type.takes_prompt:
        with pytest.raises(LabelError, match=r"takes no prompt \('a dog'\)"):
            adapter.prepare([picture(case.size)], Caption(GIVEN, prompt="a dog"))
        return
    samples, prompts = [picture(case.size, 0), picture(case.size, 1)], ["the snow in the", "a"]
    sentences = [adapter.tokenizer.encode(text) for text in ("dog", "a red ball")]
    adapter.model.eval()
    with torch.no_grad():
        inputs = adapter.prepare_prompts(samples, prompts)
        together = adapter.teacher_force(inputs, sentences).log_probs
        captions, encoder_output = adapter.generate(inputs, TASK)
        for row in range(2):
            single = adapter.prepare_prompts([samples[row]], [prompts[row]])
            (alone,) = adapter.teacher_force(single, [sentences[row]]).log_probs
            torch.testing.assert_close(together[row, : len(alone)], alone, rtol=1e-4, atol=1e-4)
            assert adapter.generate(single, TASK)[0] == [captions[row]]
    assert (
        len(
            next(iter(encoder_output.values()))
            if not isinstance(encoder_output, Tensor)
            else encoder_output
        )
        == 2
    )


@all_cases
def test_a_words_map_does_not_depend_on_the_others(case: TinyModel) -> None:
    adapter, sample = adapter_of(case), picture(case.size)
    (whole,) = explained(adapter, [sample], Caption(GIVEN))
    (alone,) = explained(adapter, [sample], Caption(GIVEN, words=["dog"]))
    assert [e.label for e in whole] == [GIVEN, "a", "brown", "dog", "runs"]
    torch.testing.assert_close(whole[3].cam, alone[1].cam, rtol=1e-5, atol=1e-6)
    assert whole[3].cam.shape == alone[1].cam.shape


@all_cases
def test_the_model_is_left_as_found(case: TinyModel) -> None:
    adapter, sample = adapter_of(case), picture(case.size)
    adapter.model.train()
    hook = adapter.model.get_submodule(case.layer).register_forward_hook(lambda *call: None)
    before = snapshot(adapter.model)
    try:
        methods = ["gradcam", "attention"] if adapter.has_attention else ["gradcam"]
        for method in methods:
            explained(adapter, [sample], TASK, method)
            assert_as_found(adapter.model, before)
        explained(adapter, [sample], Caption(GIVEN), layers=[case.layer])
        assert_as_found(adapter.model, before)
        with pytest.raises(LayerError):
            explained(adapter, [sample], Caption(GIVEN), layers=[adapter.model_type.text_module])
        assert_as_found(adapter.model, before)
    finally:
        hook.remove()
        adapter.model.eval()


@all_cases
def test_all_sorts_of_captions(case: TinyModel) -> None:
    """Given, of one word, empty, generated with beam search, and truncated."""
    adapter, sample = adapter_of(case), picture(case.size)
    inputs = prepared(adapter, sample, Caption(""))
    assert inputs.rest["sentences"][0].tokens == adapter.tokenizer.end_tokens[:1]
    (explanations,) = explained(adapter, [sample], Caption(""))
    assert [e.label for e in explanations] == ["(no words)"]
    assert explanations[0].cam.any()
    (explanations,) = explained(adapter, [sample], Caption("dog"))
    assert [e.label for e in explanations] == ["dog", "dog"]
    inputs = prepared(adapter, sample, Caption(max_new_tokens=3, num_beams=3))
    output = adapter.forward(inputs)
    assert len(inputs.rest["sentences"][0].tokens) == 3
    assert not adapter.text(output, inputs)[0]["ended"]
    assert torch.isfinite(output.log_probs).all()


@pytest.mark.parametrize("name", ["blip", "vit-gpt2", "git", "blip-2 opt", "llava"])
def test_a_caption_that_is_too_long_is_refused(name: str) -> None:
    case = case_of(name)
    adapter = adapter_of(case)
    assert adapter.max_positions is not None
    text = " ".join(["dog"] * adapter.max_positions)
    with pytest.raises(LabelError, match=rf"positions for {adapter.max_positions}; give a shorter"):
        explained(adapter, [picture(case.size)], Caption(text))


@pytest.mark.parametrize("name", ["blip", "git", "blip-2 opt", "qwen2_vl", "florence2"])
def test_a_prompt_changes_the_score_of_a_caption(name: str) -> None:
    case = case_of(name)
    adapter = adapter_of(case)
    scores = [
        explained(adapter, [picture(case.size)], Caption(GIVEN, prompt=prompt))[0][0].score
        for prompt in (None, "the snow", "what does the dog")
    ]
    assert len({round(score, 3) for score in scores}) == 3


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "florence2"])
def test_an_image_token_in_a_caption_is_a_token_like_others(name: str) -> None:
    """A model may generate an image token; it does not stand for the picture."""
    case = case_of(name)
    adapter = adapter_of(case)
    inputs = prepared(adapter, picture(case.size), Caption(GIVEN))
    (given,) = inputs.rest["sentences"]
    image_token = adapter.model.config.image_token_id
    marked = replace(given, tokens=(given.tokens[0], image_token, *given.tokens[2:]))
    with torch.no_grad():
        expected, log_probs = (
            adapter.teacher_force(inputs, [caption]).log_probs[0] for caption in (given, marked)
        )
    torch.testing.assert_close(log_probs[0], expected[0])
    assert not torch.allclose(log_probs[2:], expected[2:])


def test_a_clip_is_refused() -> None:
    clip = Sample(pixels=np.zeros((4, 32, 32, 3), dtype=np.uint8), id="clip")
    with pytest.raises(InputError, match="'clip' is a clip"):
        adapter_of(case_of("blip")).prepare([clip], Caption(GIVEN))


def test_every_model_type_is_tested() -> None:
    tested = {case.name.split()[0].replace("vit-gpt2", "vision-encoder-decoder") for case in CASES}
    assert set(MODEL_TYPES) <= tested


def test_public_explain_accepts_the_adapter() -> None:
    adapter = load(f"hf:{folder(case_of('blip'))}")
    maps = mmcam.explain(adapter, picture((50, 70)).pixels, Caption(GIVEN, words=["dog"]))
    assert maps["dog"].heatmap().shape == (50, 70)


@all_cases
def test_a_words_logit_needs_no_logits_of_the_whole_vocabulary(case: TinyModel) -> None:
    """It equals the model's own logit, also if a hook changes the output layer's output."""
    adapter = adapter_of(case)
    sample = picture(case.size)
    inputs = prepared(adapter, sample, TASK)
    with torch.no_grad():
        output = adapter.forward(inputs)
    assert output.out is not None
    token = output.sentences[0].tokens[0]
    torch.testing.assert_close(output.logit(0, [token]), output.logits[:, 0, token])
    handle = output.out.register_forward_hook(lambda module, args, out: out.tanh())
    try:
        with torch.no_grad():
            capped = adapter.forward(inputs)
    finally:
        handle.remove()
    assert capped.out is None
    torch.testing.assert_close(capped.logits[:, 0, token], output.logit(0, [token]).tanh())
