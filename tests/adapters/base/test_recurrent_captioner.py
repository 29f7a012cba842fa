"""Captioners of a CNN and an LSTM: scores, words, gradients, and that all strategies agree."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recurrent_captioner import RecurrentCaptioner
from mmcam.adapters.networks.show_and_tell import ShowAndTell
from mmcam.adapters.networks.show_attend_tell import ShowAttendTell
from mmcam.engine.pictures import explain_samples
from mmcam.errors import LabelError, MethodError, MmcamError
from mmcam.methods.plan import Plan
from tests.adapters.tiny_captioners import WORDS, CountedCnn, captioner

KINDS = ("show_and_tell", "show_attend_tell")


def picture(seed: int = 0, text: str = "") -> mmcam.Sample:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    return mmcam.Sample(pixels=pixels, text=text)


def by_hand(model: Any, pixels: Tensor, tokens: list[int]) -> list[Tensor]:
    """The logits of each token, step by step, as in generation."""
    state, last, steps = model.initial_state(model.cnn(pixels)), torch.tensor([1]), []
    for token in tokens:
        logits, state = model.step(state, last)
        steps.append(logits[0])
        last = torch.tensor([token])
    return steps


def log_probs(logits: Tensor, token: int) -> float:
    """The token's log-probability among the tokens that are not suppressed."""
    allowed = [i for i in range(len(WORDS)) if i not in (0, 1, 3)]
    return float((logits[token] - logits[allowed].logsumexp(0)).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_those_of_generation_step_by_step(kind: str) -> None:
    model = captioner(kind)
    maps = mmcam.explain(model, picture(), mmcam.Caption("two dogs run"))
    tokens = [7, 8, 9, 2]
    with torch.no_grad():
        steps = by_hand(
            model.model, model.prepare_pixels([picture()], mmcam.Caption()).pixels, tokens
        )
    expected = [log_probs(row, token) for row, token in zip(steps, tokens, strict=True)]
    assert [e.label for e in maps] == ["two dogs run", "two", "dogs", "run"]
    assert maps[0].score == pytest.approx(sum(expected), abs=1e-5)
    assert maps[0].probability == pytest.approx(math.exp(sum(expected)), rel=1e-4)
    for position in range(3):
        explanation = maps[position + 1]
        assert explanation.score == pytest.approx(
            float(steps[position][tokens[position]]), abs=1e-5
        )
        assert explanation.probability == pytest.approx(math.exp(expected[position]), rel=1e-4)
        assert explanation.target.position == position
    assert maps.text is not None
    assert maps.text["token_log_probs"] == pytest.approx(expected, abs=1e-5)
    assert sum(word["log_prob"] for word in maps.text["words"]) + expected[-1] == pytest.approx(
        maps.text["log_prob"], abs=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_generated_caption_has_the_same_probability_when_forced(
    kind: str, num_beams: int
) -> None:
    model = captioner(kind, seed=3)
    maps = mmcam.explain(model, picture(), mmcam.Caption(num_beams=num_beams, max_new_tokens=5))
    assert maps.text is not None
    assert maps.text["generated"]
    forced = mmcam.explain(model, picture(), mmcam.Caption(maps.text["caption"]))
    assert forced.text is not None
    assert not forced.text["generated"]
    if maps.text["ended"]:
        assert forced.text["log_prob"] == pytest.approx(maps.text["log_prob"], abs=1e-5)
    shared = len(maps.text["words"])
    assert forced.text["token_log_probs"][:shared] == pytest.approx(
        maps.text["token_log_probs"][:shared], abs=1e-5
    )


def test_greedy_search_takes_the_most_probable_word_at_each_step() -> None:
    model = captioner(seed=1)
    maps = mmcam.explain(model, picture(), mmcam.Caption(max_new_tokens=6))
    assert maps.text is not None
    tokens = maps.text["tokens"]
    with torch.no_grad():
        steps = by_hand(
            model.model, model.prepare_pixels([picture()], mmcam.Caption()).pixels, tokens
        )
    for row, token in zip(steps, tokens, strict=True):
        row[[0, 1, 3]] = -math.inf
        assert int(row.argmax()) == token


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["logit", "log-prob"])
def test_gradients_agree_with_finite_differences(kind: str, score: str) -> None:
    model = captioner(kind)
    model.model.double()
    task = mmcam.Caption("two dogs run", words=["dogs"], score=score)
    explanations = mmcam.explain(model, picture(), task, method="hirescam", layers="cnn")
    maps = model.model.cnn(model.prepare_pixels([picture()], task).pixels).detach()  # type: ignore[operator,union-attr]
    tokens = torch.tensor([[7, 8, 9, 2]])

    def score_of(changed: Tensor, which: int) -> float:
        class Constant(nn.Module):
            def forward(self, pixels: Tensor) -> Tensor:
                return changed

        cnn, model.model.cnn = model.model.cnn, Constant()
        try:
            output = model.model(torch.zeros(1, 3, 8, 10).double(), tokens)
        finally:
            model.model.cnn = cnn
        logits = (output[0] if isinstance(output, tuple) else output)[0]
        probs = [log_probs(row, int(t)) for row, t in zip(logits, tokens[0], strict=True)]
        return (
            sum(probs) if which == 0 else probs[1] if score == "log-prob" else float(logits[1, 8])
        )

    for which, explanation in enumerate(explanations):
        expected = torch.zeros(maps.shape[2:], dtype=torch.float64)
        for index in itertools.product(*map(range, maps.shape[1:])):
            step = torch.zeros_like(maps)
            step[(0, *index)] = 1e-5
            slope = (score_of(maps + step, which) - score_of(maps - step, which)) / 2e-5
            expected[index[1:]] += slope * maps[(0, *index)]
        torch.testing.assert_close(explanation.cam, expected.clamp(min=0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_every_strategy_gives_the_same_maps(kind: str) -> None:
    samples = [picture(0, "two dogs run"), picture(1, "a dog"), picture(2, "dogs")]
    plan = Plan.of(["gradcam", "gradcam++", "layercam"], False)
    results = {
        strategy: explain_samples(
            captioner(kind, gradient_strategy=strategy), samples, mmcam.Caption(), plan
        )
        for strategy in ("loop", "batched")
    }
    assert [len(result.explanations) for result in results["loop"]] == [12, 9, 6]
    for loop, batched in zip(results["loop"], results["batched"], strict=True):
        assert loop.text is not None
        assert batched.text is not None
        assert loop.text["log_prob"] == pytest.approx(batched.text["log_prob"], abs=1e-5)
        for a, b in zip(loop.explanations, batched.explanations, strict=True):
            assert (a.label, a.method) == (b.label, b.method)
            assert a.score == pytest.approx(b.score, abs=1e-5)
            torch.testing.assert_close(a.cam, b.cam, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_all_words_share_one_backward(
    kind: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(a) or grad(*a, **k))
    before = torch.backends.mkldnn.set_flags(_fp32_precision=None)
    with torch.profiler.profile() as profile:
        mmcam.explain(captioner(kind), picture(0), mmcam.Caption("two dogs run"), method=method)
    assert len(calls) == 1
    # oneDNN's LSTM would process the words one by one.
    assert not [event.key for event in profile.key_averages() if "mkldnn_rnn" in event.key]
    assert torch.backends.mkldnn.set_flags(_fp32_precision=None) == before


def test_layers_below_the_words_run_once_for_all_words() -> None:
    rows: list[int] = []
    model = captioner()
    net: Any = model.model
    net.pool.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    mmcam.explain(model, picture(0), mmcam.Caption("two dogs run"), method=["gradcam", "hirescam"])
    assert rows == [1]
    rows.clear()
    mmcam.explain(model, picture(0), mmcam.Caption("two dogs run"), method="guided-gradcam")
    assert rows == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_captions_of_different_lengths_equals_one_by_one(kind: str) -> None:
    model = captioner(kind)
    samples = [picture(0, "two dogs run"), picture(1, "a dog"), picture(2)]
    together = mmcam.explain(model, samples, mmcam.Caption(max_new_tokens=4))
    for sample, batched in zip(samples, together, strict=True):
        alone = mmcam.explain(model, sample, mmcam.Caption(max_new_tokens=4))
        assert [e.label for e in alone] == [e.label for e in batched]
        for a, b in zip(alone, batched, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-5)
            torch.testing.assert_close(a.cam, b.cam, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layers", ["cnn", "cnn.0"])
def test_a_words_map_does_not_depend_on_the_other_requested_words(layers: str) -> None:
    model = captioner()
    all_words = mmcam.explain(model, picture(), mmcam.Caption("two dogs run"), layers=layers)
    alone = mmcam.explain(
        model, picture(), mmcam.Caption("two dogs run", words=["dogs"]), layers=layers
    )
    torch.testing.assert_close(all_words["dogs"].cam, alone["dogs"].cam, rtol=1e-5, atol=1e-7)


def test_a_word_does_not_depend_on_later_words() -> None:
    model = captioner()
    first = mmcam.explain(model, picture(), mmcam.Caption("two dogs run"))
    second = mmcam.explain(model, picture(), mmcam.Caption("two dogs a a dog"))
    torch.testing.assert_close(first["dogs"].cam, second["dogs"].cam, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cnn_runs_once_for_generation_and_explanation(kind: str) -> None:
    model = captioner(kind)
    cnn = model.model.cnn
    assert isinstance(cnn, CountedCnn)
    generated = mmcam.explain(model, picture(), mmcam.Caption())
    assert cnn.runs == 1
    assert "forward" not in vars(cnn)
    below = mmcam.explain(model, picture(), mmcam.Caption(), layers=["cnn.0", "cnn"])
    assert cnn.runs == 3  # the graph starts inside the CNN, which has to run again
    again = [e for e in below if e.layer == "cnn"][1]
    torch.testing.assert_close(again.cam, generated[1].cam, rtol=1e-4, atol=1e-6)
    mmcam.explain(model, picture(), mmcam.Caption("a dog"))
    assert cnn.runs == 4


def test_words_are_requested_by_name_position_or_kind() -> None:
    model = captioner()

    def labels(words: Any) -> list[tuple[str, int | None]]:
        maps = mmcam.explain(model, picture(), mmcam.Caption("a dog runs a dog 3", words=words))
        return [(e.label, e.target.position) for e in maps][1:]

    assert labels("dog") == labels(["DOG"]) == [("dog", 1), ("dog", 4)]
    assert labels([4]) == labels(["4"]) == [("dog", 4)]
    assert labels(["3"]) == [("3", 5)]  # a name before a number
    assert labels(["runs", "a"]) == [("a", 0), ("runs", 2), ("a", 3)]
    assert labels([]) == []
    assert labels("visual") == [("dog", 1), ("runs", 2), ("dog", 4), ("3", 5)]


def test_repeated_words_are_told_apart() -> None:
    maps = mmcam.explain(captioner(), picture(), mmcam.Caption("a dog runs a dog"))
    with pytest.raises(LabelError, match=r"position 1.*position 4"):
        maps["dog"]
    (first,), (second,) = (maps.select("dog", position=p) for p in (1, 4))
    assert first.score != second.score
    assert not torch.equal(first.cam, second.cam)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (mmcam.Caption("a dog", words=["cat"]), "The caption \"a dog\" has no word 'cat'"),
        (mmcam.Caption("a dog", words=[2]), "numbered 0 to 1"),
        (mmcam.Caption("a dog", words=[-1]), "has no word -1"),
        (mmcam.Caption("a zebra"), "lacks 'zebra'"),
        (mmcam.Caption("a dog", prompt="say:"), "takes no prompt"),
        (mmcam.Classes(top=1), "generates captions"),
    ],
)
def test_impossible_tasks_are_refused(task: Any, message: str) -> None:
    with pytest.raises(LabelError) as caught:
        mmcam.explain(captioner(), picture(), task)
    assert message.casefold() in str(caught.value).casefold()


def test_a_captioner_has_no_classes() -> None:
    with pytest.raises(MmcamError, match="no logits of classes"):
        mmcam.explain(captioner(), picture(), mmcam.Caption("a dog"), method="gradcam++softmax")


def test_one_word_no_word_and_other_scripts() -> None:
    model = captioner()
    word = mmcam.explain(model, picture(), mmcam.Caption("dog"))
    assert [e.label for e in word] == ["dog", "dog"]
    assert word[0].target.kind == "sentence"
    empty = mmcam.explain(model, picture(), mmcam.Caption(""))
    assert [e.label for e in empty] == ["(no words)"]
    assert empty.text is not None
    assert empty.text["words"] == []
    assert empty[0].score == pytest.approx(empty.text["token_log_probs"][0])
    chinese = mmcam.explain(model, picture(), mmcam.Caption("a 狗", words=["狗"]))
    assert chinese["狗"].target.position == 1


def test_pixel_maps_products_and_rescoring_explain_words_too() -> None:
    model = captioner()
    task = mmcam.Caption("two dogs run", words=["dogs"])
    methods = ["gradient", "guided-gradcam", "scorecam", "ablationcam", "occlusion"]
    maps = mmcam.explain(model, picture(), task, method=methods)
    assert len(maps) == 10
    gradient = maps.select("dogs", method="gradient")[0].cam
    inputs = model.prepare([picture()], task)
    pixels = inputs.pixels.requires_grad_(True)
    model.model(pixels, torch.tensor([[7, 8, 9, 2]]))[0, 1, 8].backward()
    torch.testing.assert_close(gradient, pixels.grad[0], rtol=1e-4, atol=1e-7)  # type: ignore[index]


def test_the_encoder_output_is_not_reused_for_changed_pixels() -> None:
    """The encoder's output of generation may only be reused for the same pixels."""
    model = captioner()
    task = mmcam.Caption(words=[0], max_new_tokens=3)
    generated = mmcam.explain(model, picture(), task, method=["gradcam", "occlusion"])
    assert generated.text is not None
    forced = mmcam.explain(
        model, picture(), replace(task, text=generated.text["caption"]), method="occlusion"
    )
    a = generated.select(method="occlusion", position=0)[0].cam
    b = forced.select(method="occlusion", position=0)[0].cam
    assert float(a.abs().max()) > 0
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_counterfactual_of_a_word_is_the_opposite_gradient() -> None:
    model, task = captioner(), mmcam.Caption("two dogs run")
    plain = mmcam.explain(model, picture(), task, method="gradcam-signed")
    against = mmcam.explain(model, picture(), task, method="gradcam-signed", counterfactual=True)
    for a, b in zip(plain, against, strict=True):
        torch.testing.assert_close(a.cam, -b.cam, rtol=1e-4, atol=1e-6)
        assert a.score == pytest.approx(b.score)


def test_attention_is_a_further_map() -> None:
    model = captioner("show_attend_tell")
    maps = mmcam.explain(
        model, picture(), mmcam.Caption("two dogs run"), method=["gradcam", "attention"]
    )
    attention = [e for e in maps if e.method == "attention"]
    with torch.no_grad():
        inputs = model.prepare([picture()], mmcam.Caption("two dogs run"))
        _, alpha = model.model(inputs.pixels, torch.tensor([[7, 8, 9, 2]]))
    assert len(attention) == 4
    assert all(e.cam.shape == (4, 5) for e in attention)
    torch.testing.assert_close(attention[2].cam, alpha[0, 1])
    torch.testing.assert_close(attention[0].cam, alpha[0].mean(0))
    assert [float(e.cam.sum()) for e in attention] == pytest.approx([1.0] * 4, abs=1e-5)


def test_attention_of_a_captioner_without_it_is_refused() -> None:
    with pytest.raises(MethodError, match="no attention of its own"):
        mmcam.explain(captioner(), picture(), mmcam.Caption("a dog"), method="attention")
    with pytest.raises(MethodError, match="no counterfactual"):
        mmcam.explain(
            captioner("show_attend_tell"),
            picture(),
            mmcam.Caption("a dog"),
            method="attention",
            counterfactual=True,
        )


def test_attention_has_its_published_form() -> None:
    """Eq. 4-6 of Xu et al. 2015 and the gate of section 4.2.1, written out."""
    torch.manual_seed(0)
    net = ShowAttendTell(nn.Identity(), 3, 5, embedding=4, hidden=6, attention=7)
    maps = torch.randn(1, 3, 2, 2)
    hidden, cell, *_ = net.initial_state(maps)
    cells = [maps[0, :, i, j] for i in range(2) for j in range(2)]
    mean = sum(cells) / 4  # type: ignore[arg-type]
    torch.testing.assert_close(hidden[0], torch.tanh(net.init_h(mean)))
    scores = torch.cat(
        [net.attend(torch.tanh(net.attend_map(a) + net.attend_state(hidden[0]))) for a in cells]
    )
    alpha = scores.exp() / scores.exp().sum()
    context = torch.sigmoid(net.gate(hidden[0])) * sum(
        weight * a for weight, a in zip(alpha, cells, strict=True)
    )
    word = net.embed(torch.tensor(1))
    new_hidden, _ = net.lstm(torch.cat([word, context])[None], (hidden, cell))
    logits = net.out(torch.tanh(word + net.out_state(new_hidden[0]) + net.out_context(context)))
    output, attention = net(maps, torch.tensor([[3]]))
    torch.testing.assert_close(output[0, 0], logits)
    torch.testing.assert_close(attention[0, 0].flatten(), alpha)


def test_the_picture_is_the_first_input_of_show_and_tell() -> None:
    torch.manual_seed(0)
    net = ShowAndTell(nn.Identity(), nn.Flatten(), 12, 5, embedding=4, hidden=6)
    maps = torch.randn(1, 3, 2, 2)
    inputs = [net.img_proj(maps.flatten(1)), *(net.embed(torch.tensor([t])) for t in (1, 3, 4))]
    states, _ = net.lstm(torch.stack(inputs, 1))
    torch.testing.assert_close(net(maps, torch.tensor([[3, 4, 2]])), net.out(states[:, 1:]))


def test_a_captioner_in_training_mode_generates_in_evaluation_mode() -> None:
    model = captioner()
    assert isinstance(model.model, ShowAndTell)
    model.model.lstm.dropout = 0.5
    model.model.train()
    first, second = (
        mmcam.explain(model, picture(), mmcam.Caption(max_new_tokens=4)) for _ in range(2)
    )
    assert first.text == second.text
    assert model.model.training
    assert model.model.cnn.training


def test_saved_captions_have_their_words(tmp_path: Any) -> None:
    import json

    maps = mmcam.explain(captioner(), picture(), mmcam.Caption("a dog runs a dog"))
    maps.save(tmp_path)
    facts = json.loads((tmp_path / "explanation.json").read_text())
    assert facts["task"] == "caption"
    assert facts["text"]["caption"] == "a dog runs a dog"
    assert [w["text"] for w in facts["text"]["words"]] == ["a", "dog", "runs", "a", "dog"]
    assert [t["id"] for t in facts["targets"]] == [
        "sentence", "00-a", "01-dog", "02-runs", "03-a", "04-dog",
    ]  # fmt: skip
    assert all((tmp_path / t["overlay"]).is_file() for t in facts["targets"])
    assert (tmp_path / "sheet.png").is_file()


def test_preprocessing_is_the_adapters_own() -> None:
    model = captioner(preprocess=Preprocess(resize=(12, 14)))
    assert isinstance(model, RecurrentCaptioner)
    maps = mmcam.explain(model, picture(), mmcam.Caption("a dog"))
    assert maps[0].cam.shape == (6, 7)
