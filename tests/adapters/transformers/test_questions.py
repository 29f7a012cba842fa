"""Answers of transformers' generative models: scores, gradients, rows, words, errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mmcam
from mmcam.adapters.transformers.blip_vqa import BlipVqaAdapter
from mmcam.adapters.transformers.generation import GenerativeAdapter
from mmcam.capture.layers import tapped
from mmcam.capture.recording import capture
from mmcam.engine.maps import with_contrasts
from mmcam.engine.pictures import explain_samples
from mmcam.errors import LabelError
from mmcam.methods.plan import Plan
from mmcam.results.explanation import Explanation
from mmcam.tasks import Answers, Caption
from mmcam.types import Sample
from tests.adapters.tiny_generative import (
    BLIP_VQA,
    CASES,
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

QUESTION = "what does the dog describe ?"
ANSWERS = ("red", "red ball", "a brown dog on the grass")
VQA_CASES = [case for case in CASES if case.name not in ("blip", "vit-gpt2", "swin-gpt2")]
VQA_CASES.append(BLIP_VQA)
all_cases = pytest.mark.parametrize("case", VQA_CASES, ids=str)
batch_cases = pytest.mark.parametrize(
    "case", [case for case in VQA_CASES if not case.one_by_one], ids=str
)


def case_for(name: str) -> TinyModel:
    return BLIP_VQA if name == BLIP_VQA.name else case_of(name)


def explained(
    adapter: Any, samples: list[Sample], task: Any, method: str = "gradcam", **options: Any
) -> list[list[Explanation]]:
    plan = Plan.of([method], False)
    return [
        result.explanations for result in explain_samples(adapter, samples, task, plan, **options)
    ]


@torch.no_grad()
def reference_log_probs(
    adapter: GenerativeAdapter, sample: Sample, tokens: tuple[int, ...]
) -> Tensor:
    """Log-probabilities of an answer's tokens by the model's own forward, without mmcam."""
    model: Any = adapter.model
    arguments = reference_arguments(adapter, sample, QUESTION)
    answer = torch.tensor([tokens])
    model_type = model.config.model_type
    if model_type == "blip":
        start = torch.tensor([[model.decoder_start_token_id]])
        encoder_output = model.vision_model(arguments["pixel_values"]).last_hidden_state
        question = model.text_encoder(
            arguments["input_ids"],
            arguments["attention_mask"],
            encoder_hidden_states=encoder_output,
        ).last_hidden_state
        logits = model.text_decoder(
            torch.cat([start, answer[:, :-1]], 1), encoder_hidden_states=question
        ).logits
    elif adapter.is_encoder_decoder:
        language_model = model.get_submodule(adapter.model_type.language_model)
        config = language_model.generation_config
        starts = [config.decoder_start_token_id, config.forced_bos_token_id]
        first = torch.tensor([[token for token in starts if token is not None]])
        output = model(**arguments, decoder_input_ids=torch.cat([first, answer[:, :-1]], 1))
        logits = output.logits[:, first.shape[1] - 1 :]
    else:
        ids = torch.cat([arguments.pop("input_ids"), answer], 1)
        arguments.pop("attention_mask", None)
        for key in ("token_type_ids", "mm_token_type_ids"):
            if key in arguments:
                answer_types = torch.full_like(answer, int(key == "token_type_ids"))
                arguments[key] = torch.cat([arguments[key], answer_types], 1)
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), **arguments)
        logits = output.logits[:, -1 - len(tokens) : -1]
    return logits[0].log_softmax(1).gather(1, answer[0][:, None])[:, 0]


@all_cases
def test_forced_answers_have_the_models_own_log_likelihood(case: TinyModel) -> None:
    """Also of an answer that is a prefix of another; the end token counts too."""
    adapter, sample = adapter_of(case), picture(case.size)
    inputs = prepared(adapter, sample, Answers(QUESTION, ANSWERS))
    assert inputs.sample_index == (0, 0, 0)
    with torch.no_grad():
        output = adapter.forward(inputs)
    for row, (text, sentence) in enumerate(zip(ANSWERS, output.sentences, strict=True)):
        assert adapter.tokenizer.tokenizer.decode(sentence.tokens[:-1]).strip() == text
        assert sentence.tokens[-1] == adapter.tokenizer.end_tokens[0]
        steps = len(sentence.tokens)
        expected = reference_log_probs(adapter, sample, sentence.tokens)
        torch.testing.assert_close(output.log_probs[row, :steps], expected, rtol=1e-4, atol=1e-4)
        assert not output.log_probs[row, steps:].any()
    maps = mmcam.explain(adapter, sample, Answers(QUESTION, ANSWERS, contrast=("red", "dog")))
    assert [e.target.kind for e in maps] == ["answer"] * 4 + ["contrast"]
    scores = dict(zip([e.label for e in maps], [e.score for e in maps], strict=True))
    assert scores["red rather than dog"] == pytest.approx(scores["red"] - scores["dog"], abs=1e-4)
    assert maps.text is not None
    assert maps.text["question"] == QUESTION
    first, *_, last = maps.text["answers"]
    assert (first["answer"], last["answer"]) == ("red", "dog")
    assert first["per_token"] == pytest.approx(scores["red"] / len(first["tokens"]), abs=1e-4)
    assert maps["red"].probability == pytest.approx(math.exp(scores["red"]), rel=1e-3)


@all_cases
def test_the_models_own_answers_are_those_of_generate(case: TinyModel) -> None:
    adapter, sample = adapter_of(case), picture(case.size)
    model: Any = adapter.model
    for count in (1, 3):
        inputs = prepared(adapter, sample, Answers(QUESTION, top=count))
        with torch.no_grad():
            sequences = model.generate(
                **reference_arguments(adapter, sample, QUESTION),
                num_beams=count,
                num_return_sequences=count,
                max_new_tokens=21,
                do_sample=False,
            )
        prefix = list(inputs.rest["prompt_tokens"][0].prefix)
        rows = [row.tolist() for row in sequences]
        rows = [row[len(prefix) :] if row[: len(prefix)] == prefix else row for row in rows]
        tokenizer = adapter.tokenizer.tokenizer
        texts = [tokenizer.decode(row[:20], skip_special_tokens=True).strip() for row in rows]
        sentences = inputs.rest["sentences"]
        assert [sentence.text for sentence in sentences] == list(dict.fromkeys(texts))
        assert all(sentence.generated for sentence in sentences)


@contextmanager
def changed_layer(adapter: Any, layer: str, change: Any) -> Iterator[None]:
    with DoublePrecision(), torch.no_grad(), tapped(adapter.model, [layer], lambda _, x: change(x)):
        yield


@all_cases
def test_gradients_are_those_of_finite_differences(case: TinyModel) -> None:
    """For each answer and for a contrast, at the encoder's output."""
    adapter = in_double_precision(adapter_of(case))
    task = Answers(QUESTION, ANSWERS[:2], contrast=("a dog", "red ball"))
    with DoublePrecision():
        inputs = prepared(adapter, picture(case.size), task)
    rows, layer = 3, adapter.layers[0]
    assert inputs.contrasts == ((2, 1),)
    with DoublePrecision(), capture(adapter.model, [layer]) as (recording, check):
        output = adapter.forward(inputs)
        check()
        scores = recording.scores(output, adapter.targets(output, task))
        (gradient,) = (step[layer] for step in recording.gradients(scores))
    slopes = with_contrasts(gradient.flatten(0, 1).reshape(rows, -1), inputs.contrasts)
    direction = torch.randn(slopes.shape[1], dtype=torch.float64)
    everywhere = direction.repeat(rows).view_as(gradient)

    def scored(step: float) -> Tensor:
        with changed_layer(adapter, layer, lambda x: x + step * everywhere):
            moved = adapter.forward(inputs)
        return with_contrasts(moved.log_probs.sum(1), inputs.contrasts)

    expected = (scored(1e-6) - scored(-1e-6)) / 2e-6
    assert expected.abs().min() > 1e-6
    torch.testing.assert_close(slopes @ direction, expected, rtol=1e-4, atol=1e-6)


@all_cases
def test_the_relevance_of_a_questions_words(case: TinyModel) -> None:
    """Gradient times input of a word: the slope of the score as its embedding is scaled."""
    adapter = in_double_precision(adapter_of(case))
    task = Answers(QUESTION, ["red ball"])
    sample = picture(case.size)
    with DoublePrecision():
        ((explanation,),) = explained(adapter, [sample], task)
        inputs = prepared(adapter, sample, task)
    if case.name == "instructblip":  # the Q-Former embeds the question too
        assert adapter.word_embedding is None
        assert explanation.words == ()
        return
    layer = adapter.word_embedding
    assert layer is not None
    assert [text for text, _ in explanation.words] == QUESTION.split()
    (words,), (prompt,) = inputs.rest["words"], inputs.rest["prompt_tokens"]
    tokens = prompt.source or prompt.prefix
    for word, (text, part) in zip(words, explanation.words, strict=True):
        decoded = adapter.tokenizer.tokenizer.decode(tokens[word.start : word.stop])
        assert decoded.strip() in (text, "[UNK]")

        def scaled(
            x: Tensor, step: float, positions: slice = slice(word.start, word.stop)
        ) -> Tensor:
            x = x.clone()
            x[:, positions] *= 1 + step
            return x

        scores = []
        for step in (1e-6, -1e-6):
            with changed_layer(adapter, layer, lambda x, step=step: scaled(x, step)):
                scores.append(float(adapter.forward(inputs).log_probs.sum()))
        assert part == pytest.approx((scores[0] - scores[1]) / 2e-6, rel=1e-3, abs=1e-6)
    assert any(abs(part) > 1e-4 for _, part in explanation.words)


@batch_cases
def test_answers_of_a_batch_are_those_one_by_one(case: TinyModel) -> None:
    """Questions of different length, answers of different length, contrasts, words."""
    adapter = adapter_of(case)
    questions = (QUESTION, "the dog ?", "what does the red ball describe in the snow ?")
    samples = [replace(picture(case.size, i), text=q) for i, q in enumerate(questions)]
    for task in (Answers(answers=ANSWERS, contrast=("red", "two cats")), Answers(top=2)):
        together = explained(adapter, samples, task, "gradcam-signed")
        for sample, batched in zip(samples, together, strict=True):
            (alone,) = explained(adapter, [sample], task, "gradcam-signed")
            assert [e.label for e in batched] == [e.label for e in alone]
            for first, second in zip(batched, alone, strict=True):
                assert first.score == pytest.approx(second.score, abs=1e-3)
                torch.testing.assert_close(first.cam, second.cam, rtol=1e-3, atol=1e-4)
                assert [text for text, _ in first.words] == [text for text, _ in second.words]
                parts = [[part for _, part in e.words] for e in (first, second)]
                assert parts[0] == pytest.approx(parts[1], rel=1e-3, abs=1e-3)
            if task.contrast:
                red, cats, contrast = batched[0].cam, batched[3].cam, batched[4].cam
                torch.testing.assert_close(contrast, red - cats, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["llava_next", "qwen2_vl", "qwen2_5_vl", "idefics3"])
def test_answers_to_pictures_in_parts_are_those_one_by_one(name: str) -> None:
    case = case_of(name)
    adapter = adapter_of(case)
    samples = [replace(picture(case.size, i), text=QUESTION[i * 5 :]) for i in range(2)]
    together = explained(adapter, samples, Answers(answers=ANSWERS))
    for sample, found in zip(samples, together, strict=True):
        for answer, one in zip(ANSWERS, found, strict=True):
            ((alone,),) = explained(adapter, [sample], Answers(answers=[answer]))
            assert one.score == pytest.approx(alone.score, abs=1e-3)
            torch.testing.assert_close(one.cam, alone.cam, rtol=1e-3, atol=1e-4)


@all_cases
def test_the_encoder_runs_once_for_all_answers(case: TinyModel) -> None:
    adapter = adapter_of(case)
    pictures = [picture(case.size, seed) for seed in range(2)]
    with counted_runs(adapter.model, case.layer) as runs:
        for task in (Answers(QUESTION, ANSWERS, contrast=("red", "dog")), Answers(QUESTION, top=3)):
            for samples in (pictures[:1], pictures):
                runs[0] = 0
                explained(adapter, samples, task)
                assert runs[0] == len(samples)


@all_cases
def test_the_model_is_left_as_found(case: TinyModel) -> None:
    adapter, sample = adapter_of(case), picture(case.size)
    adapter.model.train()
    before = snapshot(adapter.model)
    random = torch.get_rng_state()
    try:
        tasks = (Answers(QUESTION, ["red", "dog"], contrast=("red", "dog")), Answers(QUESTION))
        for task in tasks:
            for method in ("gradcam", "attention") if adapter.has_attention else ("gradcam",):
                explained(adapter, [sample], task, method)
                assert_as_found(adapter.model, before)
        with pytest.raises(LabelError):
            explained(adapter, [sample], Answers(" "))
        assert_as_found(adapter.model, before)
        assert torch.equal(torch.get_rng_state(), random)
    finally:
        adapter.model.eval()


@all_cases
def test_answers_at_an_earlier_layer(case: TinyModel) -> None:
    """At a layer before the encoder's output all rows run, with the same scores."""
    adapter, sample = adapter_of(case), picture(case.size)
    task = Answers(QUESTION, ANSWERS)
    (above,) = explained(adapter, [sample], task)
    (below,) = explained(adapter, [sample], task, layers=[case.layer])
    for first, second in zip(above, below, strict=True):
        assert first.score == pytest.approx(second.score, abs=1e-3)
        assert second.cam.isfinite().all()


@pytest.mark.parametrize("name", ["git", "blip-2 opt", "llava", "qwen2_vl", "blip vqa"])
def test_the_same_answer_twice_is_one(name: str) -> None:
    case = case_for(name)
    adapter, sample = adapter_of(case), picture(case.size)
    maps = mmcam.explain(adapter, sample, Answers(QUESTION, ["red", "dog", "red"]))
    assert [e.label for e in maps] == ["red", "dog"]
    task = Answers(QUESTION, ["red", "dog"], contrast=("dog", "red"))
    assert len(mmcam.explain(adapter, sample, task)) == 3
    if name in ("git", "blip vqa"):  # to a tokenizer without capitals
        with pytest.raises(LabelError, match=r"not a contrast: both answers have the same tokens"):
            mmcam.explain(adapter, sample, Answers(QUESTION, contrast=("Red", "red")))


@pytest.mark.parametrize("name", ["blip", "vit-gpt2", "swin-gpt2"])
def test_models_of_captions_take_no_question(name: str) -> None:
    case = case_of(name)
    with pytest.raises(LabelError, match="generates captions and takes no questions; choose"):
        mmcam.explain(adapter_of(case), picture(case.size), Answers(QUESTION))


@all_cases
def test_unsupported_questions_are_refused(case: TinyModel) -> None:
    adapter, sample = adapter_of(case), picture(case.size)
    with pytest.raises(LabelError, match=r"question for 'noise 0' is empty; ask something"):
        mmcam.explain(adapter, sample, Answers("  "))
    if adapter.model_type.feed == "interleaved":
        image_token = adapter.processor.image_token
        image_token = getattr(image_token, "content", image_token)
        with pytest.raises(LabelError, match="stands for the picture"):
            mmcam.explain(adapter, sample, Answers(f"what does {image_token} ?", ["red"]))
    long = " ".join(["what does the dog describe"] * 100)
    if adapter.max_positions is None:
        maps = mmcam.explain(adapter, sample, Answers(long, ["red"]))
        assert len(maps["red"].words) == 500
        return
    message = (
        rf'"what does the dog .*\.\.\." has \d+ tokens .* positions for {adapter.max_positions}'
    )
    with pytest.raises(LabelError, match=message):
        mmcam.explain(adapter, sample, Answers(long, ["red"]))


def test_a_question_that_is_too_long_for_the_queries() -> None:
    case = case_of("instructblip")
    task = Answers(" ".join(["dog"] * 70), ["red"])
    with pytest.raises(
        LabelError, match=r"the Q-Former of .* has positions for 64; give a shorter"
    ):
        mmcam.explain(adapter_of(case), picture(case.size), task)


@pytest.mark.parametrize("name", ["git", "blip-2 opt", "llava", "florence2", "blip vqa"])
def test_rescoring_explains_each_answer(name: str) -> None:
    """Changed pictures are encoded again, and each answer is scored on all of them."""
    case = case_for(name)
    adapter, sample = adapter_of(case), picture(case.size)
    maps = mmcam.explain(adapter, sample, Answers(QUESTION, ANSWERS), method="scorecam")
    for explanation, answer in zip(maps, ANSWERS, strict=True):
        alone = mmcam.explain(adapter, sample, Answers(QUESTION, [answer]), method="scorecam")
        assert explanation.cam.isfinite().all()
        torch.testing.assert_close(explanation.cam, alone[0].cam, rtol=1e-3, atol=1e-3)


@all_cases
@pytest.mark.parametrize("question", ["?", "\u200b", "\x00"])
def test_a_question_without_a_word_is_refused(case: TinyModel, question: str) -> None:
    """A tokenizer may drop all characters of a question, so that nothing is asked."""
    method = "attention" if case is BLIP_VQA else "gradcam"
    with pytest.raises(LabelError, match=r"knows no word of the question.*use the words"):
        mmcam.explain(adapter_of(case), picture(case.size).pixels, Answers(question), method=method)


@all_cases
def test_a_question_in_another_script(case: TinyModel) -> None:
    """It is tokenized byte by byte if the tokenizer can, and refused if all words are unknown."""
    adapter, sample = adapter_of(case), picture(case.size)
    question = "\u043a\u0430\u043a\u043e\u0433\u043e \u0446\u0432\u0435\u0442\u0430 ?"
    unk = adapter.tokenizer.tokenizer.unk_token_id
    tokens = adapter.tokenizer.tokenizer(question, add_special_tokens=False)["input_ids"]
    if unk in tokens:
        with pytest.raises(LabelError, match="knows no word of the question"):
            mmcam.explain(adapter, sample, Answers(question, ["red"]))
        return
    maps = mmcam.explain(adapter, sample, Answers(question, ["red"]))
    other = mmcam.explain(adapter, sample, Answers(QUESTION, ["red"]))
    assert maps["red"].score != other["red"].score
    assert maps.text is not None
    assert maps.text["words"] == question.split()


@pytest.mark.parametrize("name", ["git", "blip vqa"])
def test_unknown_words_are_recorded(name: str, tmp_path: Path) -> None:
    case = case_for(name)
    task = Answers("what does the zebra describe ?", ["red"])
    maps = mmcam.explain(adapter_of(case), picture(case.size), task)
    maps.save(tmp_path)
    facts = json.loads((tmp_path / "explanation.json").read_text())
    assert facts["text"]["unknown_words"] == ["zebra"]
    assert [word["text"] for word in facts["targets"][0]["question_words"]][3] == "zebra"


def test_an_answer_that_cannot_be_encoded_is_named() -> None:
    case = case_of("git")
    with pytest.raises(LabelError, match=r"cannot spell 'brwn' \(nearest: brown"):
        mmcam.explain(adapter_of(case), picture(case.size), Answers(QUESTION, ["brwn"]))


def test_a_word_of_the_chat_template_is_found_in_the_question() -> None:
    """Words are located by the question's position, not by the first or last match."""
    case = case_of("qwen2_vl")
    adapter = adapter_of(case)
    for question in ("user", "assistant", "user assistant user"):
        (words,) = prepared(adapter, picture(case.size), Answers(question, ["red"])).rest["words"]
        (prompt,) = prepared(adapter, picture(case.size), Answers(question, ["red"])).rest[
            "prompt_tokens"
        ]
        assert [word.text for word in words] == question.split()
        tokenizer = adapter.tokenizer.tokenizer
        before = tokenizer.decode(prompt.prefix[: words[0].start])
        assert before.endswith("<|vision_end|>")
        after = tokenizer.decode(prompt.prefix[words[-1].stop :])
        assert after.startswith("<|im_end|>")


def test_blips_attention_is_that_of_its_question() -> None:
    adapter, sample = adapter_of(BLIP_VQA), picture(BLIP_VQA.size)
    maps = mmcam.explain(adapter, sample, Answers(QUESTION, ANSWERS), method="attention")
    arguments = reference_arguments(adapter, sample, QUESTION)
    model: Any = adapter.model
    with torch.no_grad():
        encoder_output = model.vision_model(arguments["pixel_values"]).last_hidden_state
        attentions = model.text_encoder(
            arguments["input_ids"], encoder_hidden_states=encoder_output, output_attentions=True
        ).cross_attentions
    mean = torch.stack(list(attentions)).mean((0, 2))[0, 1:-1, 1:].mean(0)
    for explanation in maps:
        torch.testing.assert_close(explanation.cam, mean.view(4, 4))


def test_blip_for_vqa_generates_no_captions() -> None:
    adapter = adapter_of(BLIP_VQA)
    assert isinstance(adapter, BlipVqaAdapter)
    with pytest.raises(LabelError, match="answers questions and does not support Caption"):
        mmcam.explain(adapter, picture(BLIP_VQA.size), Caption())
    assert adapter.name.endswith(str(folder(BLIP_VQA)))
