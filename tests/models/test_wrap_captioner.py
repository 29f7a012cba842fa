"""Captioners that mmcam has never seen: their own and forced captions, and all that is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

import mmcam
from mmcam.errors import LabelError, LayerError, ModelError
from tests.adapters.tiny_tokenizers import word_pieces
from tests.models.captioners import (
    END,
    START,
    WORDS,
    CnnAttention,
    CnnLstm,
    PatchTransformer,
    lively,
)
from tests.snapshots import assert_as_found, snapshot

LENGTH = 5
FORCED = "two dogs run"
FORCED_TOKENS = [7, 8, 9, END]
NETS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: lively(CnnLstm(), 32),
    "attention": lambda: lively(CnnAttention(), 106),
    "transformer": lambda: lively(PatchTransformer(), 7),
}
LAYERS = {"lstm": "cnn", "attention": "cnn", "transformer": "patches"}
nets = pytest.mark.parametrize("kind", NETS)


def picture(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)


def wrapped_net(kind: str, net: nn.Module | None = None, **options: Any) -> Any:
    options = {"tokenizer": WORDS, "layer": LAYERS[kind], **options}
    if kind == "attention":
        options.setdefault("attention", True)
    if kind == "transformer":
        options.setdefault("max_positions", 12)
    return mmcam.wrap_captioner(net or NETS[kind](), to_tensor, **options)


def logits_by_hand(net: Any, pixels: Tensor, tokens: list[int]) -> Tensor:
    output = net(pixels, torch.tensor([[START, *tokens]]))
    logits: Tensor = (output[0] if isinstance(output, tuple) else output)[0]
    return logits


def greedy_by_hand(net: Any, pixels: Tensor) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < LENGTH + 1 and END not in tokens:
        tokens.append(int(logits_by_hand(net, pixels, tokens)[-1].argmax()))
    return tokens if END in tokens else tokens[:LENGTH]


def cam_by_hand(net: Any, layer: str, pixels: Tensor, tokens: list[int], score: Any) -> Tensor:
    """Signed Grad-CAM (eq. 1 and 2 without the ReLU) of a score of the caption's logits."""
    maps: list[Tensor] = []
    hook = net.get_submodule(layer).register_forward_hook(lambda *call: maps.append(call[-1]))
    logits = logits_by_hand(net, pixels, tokens[:-1])
    hook.remove()
    (gradient,) = torch.autograd.grad(score(logits), maps)
    cam: Tensor = (gradient.mean((2, 3), keepdim=True) * maps[0]).sum(1)[0].detach()
    return cam


def assert_maps_by_hand(maps: mmcam.Explanations, net: nn.Module, layer: str) -> None:
    """The sentence and each word agree with gradients computed without mmcam."""
    assert maps.text is not None
    tokens = maps.text["tokens"]
    pixels = to_tensor(picture())[None]

    def log_likelihood(logits: Tensor) -> Tensor:
        return logits.log_softmax(1)[range(len(tokens)), tokens].sum()

    sentence, *words = maps
    expected = cam_by_hand(net, layer, pixels, tokens, log_likelihood)
    torch.testing.assert_close(sentence.cam, expected, rtol=1e-4, atol=1e-6)
    assert [word.label for word in words] == [WORDS[t] for t in tokens if t != END]
    for step, word in enumerate(words):
        expected = cam_by_hand(
            net, layer, pixels, tokens, lambda logits, step=step: logits[step, tokens[step]]
        )
        torch.testing.assert_close(word.cam, expected, rtol=1e-4, atol=1e-6)
        assert word.cam.any()


@nets
def test_its_own_caption_is_that_of_greedy_search(kind: str) -> None:
    net = NETS[kind]().eval()
    tokens = greedy_by_hand(net, to_tensor(picture())[None])
    assert len(set(tokens)) > 2
    maps = mmcam.explain(
        wrapped_net(kind, net),
        picture(),
        mmcam.Caption(max_new_tokens=LENGTH),
        method="gradcam-signed",
    )
    assert maps.text is not None
    assert maps.text["generated"]
    assert maps.text["tokens"] == tokens
    assert_maps_by_hand(maps, net, LAYERS[kind])


@nets
def test_a_forced_caption_is_explained_word_by_word(kind: str) -> None:
    net = NETS[kind]().eval()
    task = mmcam.Caption(FORCED)
    maps = mmcam.explain(wrapped_net(kind, net), picture(), task, method="gradcam-signed")
    assert maps.text is not None
    assert maps.text["tokens"] == FORCED_TOKENS
    assert_maps_by_hand(maps, net, LAYERS[kind])
    logits = logits_by_hand(net, to_tensor(picture())[None], FORCED_TOKENS[:-1])
    expected = logits.log_softmax(1)[range(4), FORCED_TOKENS].tolist()
    assert maps.text["token_log_probs"] == pytest.approx(expected, abs=1e-5)


def test_attention_is_the_models_own() -> None:
    net = NETS["attention"]().eval()
    task = mmcam.Caption(FORCED, words=["dogs"])
    maps = mmcam.explain(wrapped_net("attention", net), picture(), task, method="attention")
    _, attention = net(to_tensor(picture())[None], torch.tensor([[START, 7, 8, 9]]))
    torch.testing.assert_close(maps["dogs"].cam, attention[0, 1].detach())


def test_a_token_layer_is_laid_out_by_tracing() -> None:
    """The encoder returns [batch, patch, channel]; mmcam finds the patches without any help."""
    net = NETS["transformer"]().eval()
    model = wrapped_net("transformer", net, layer="encoder")
    task = mmcam.Caption(FORCED, words=["dogs"])
    maps = mmcam.explain(model, picture(), task, method="gradcam-signed")
    pixels = to_tensor(picture())[None]
    tokens = net.encoder(net.patches(pixels).flatten(2).transpose(1, 2)).detach()  # type: ignore[operator]
    leaf = tokens.requires_grad_(True)
    hook = net.get_submodule("encoder").register_forward_hook(lambda *call: leaf)
    score = logits_by_hand(net, pixels, [7])[1, 8]
    hook.remove()
    (gradient,) = torch.autograd.grad(score, leaf)
    expected = (gradient.mean(1, keepdim=True) * leaf).sum(2).detach().view(4, 5)
    torch.testing.assert_close(maps["dogs"].cam, expected, rtol=1e-4, atol=1e-6)


def test_without_a_layer_a_probe_finds_one() -> None:
    for kind, layer in (("lstm", "cnn"), ("attention", "cnn"), ("transformer", "encoder")):
        model = wrapped_net(kind, layer=None)
        maps = mmcam.explain(model, picture(), mmcam.Caption(FORCED, words=[]))
        assert maps[0].layer == layer


def test_steps_alone_give_the_same_as_all_at_once() -> None:
    net: Any = NETS["lstm"]()
    steps = {"initial_state": net.initial_state, "step": net.step}
    options: list[dict[str, Any]] = [
        {},
        steps,
        {**steps, "forward": net},
        {"encoder": "cnn"},
        {"encoder": "cnn", **steps},
    ]
    for task in (mmcam.Caption(max_new_tokens=LENGTH, num_beams=3), mmcam.Caption(FORCED)):
        results = [
            mmcam.explain(wrapped_net("lstm", net, **each), picture(), task) for each in options
        ]
        assert results[0].text is not None
        for other in results[1:]:
            assert other.text is not None
            assert other.text["tokens"] == results[0].text["tokens"]
            for first, second in zip(results[0], other, strict=True):
                assert first.label == second.label
                torch.testing.assert_close(first.cam, second.cam, rtol=1e-4, atol=1e-6)


@nets
def test_a_named_encoder_runs_once_for_a_caption(kind: str) -> None:
    net = NETS[kind]().eval()
    encoder = "cnn" if kind != "transformer" else "encoder"
    runs: list[Any] = []
    hook = net.get_submodule(encoder)[0] if kind != "transformer" else net.get_submodule("patches")  # type: ignore[index]
    plain = wrapped_net(kind, net, layer=encoder)
    named = wrapped_net(kind, net, layer=encoder, encoder=encoder)
    task = mmcam.Caption(max_new_tokens=LENGTH)
    first, second = (mmcam.explain(model, picture(), task) for model in (plain, named))
    assert first.text == second.text
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one.cam, other.cam)
    if kind != "transformer":  # what precedes the encoder runs every time
        hook.register_forward_hook(lambda *call: runs.append(1))
        mmcam.explain(named, picture(), task)
        assert len(runs) == 1
        mmcam.explain(plain, picture(), task)
        assert len(runs) > 4


@nets
def test_pictures_of_a_batch_do_not_depend_on_each_other(kind: str) -> None:
    model = wrapped_net(kind)
    pictures = [picture(seed) for seed in range(3)]
    tasks = [mmcam.Caption(max_new_tokens=LENGTH, num_beams=2)] * 3
    for batch, single in zip(
        mmcam.explain(model, pictures, tasks),
        [mmcam.explain(model, each, tasks[0]) for each in pictures],
        strict=True,
    ):
        assert batch.text is not None
        assert single.text is not None
        assert batch.text["tokens"] == single.text["tokens"]
        for one, other in zip(batch, single, strict=True):
            torch.testing.assert_close(one.cam, other.cam, rtol=1e-4, atol=1e-4)


@nets
def test_methods_that_score_again_work_too(kind: str) -> None:
    task = mmcam.Caption(FORCED, words=["dogs"])
    maps = mmcam.explain(wrapped_net(kind), picture(), task, method=["scorecam", "occlusion"])
    assert {explanation.method for explanation in maps} == {"scorecam", "occlusion"}
    assert all(e.cam.any() for e in maps if e.method == "occlusion")


@nets
def test_a_model_in_training_is_explained_in_evaluation_and_left_in_training(kind: str) -> None:
    net = NETS[kind]().train()
    task = mmcam.Caption(max_new_tokens=LENGTH)
    before = snapshot(net)
    model = wrapped_net(kind, net)
    first, again = (mmcam.explain(model, picture(), task) for _ in range(2))
    assert_as_found(net, before)
    net.eval()
    evaluated = mmcam.explain(wrapped_net(kind, net), picture(), task)
    assert first.text == again.text == evaluated.text
    for one, other in zip(first, evaluated, strict=True):
        assert torch.equal(one.cam, other.cam)


LETTERS = " abcdefghijklmnopqrstuvwxyz"


class Letters:
    """A tokenizer of single letters, with start 0, end 1 and letters from 2 on."""

    def encode(self, text: str) -> list[int]:
        return [LETTERS.index(letter) + 2 for letter in text.lower()]

    def decode(self, tokens: list[int]) -> str:
        return "".join(LETTERS[token - 2] if token > 1 else "" for token in tokens)


def test_a_word_of_several_tokens_is_the_sum_of_its_tokens() -> None:
    net = lively(CnnLstm(tokens=len(LETTERS) + 2)).eval()
    letters = Letters()
    for tokenizer in (letters, (letters.encode, letters.decode)):
        model = mmcam.wrap_captioner(
            net, to_tensor, tokenizer=tokenizer, start=0, end=1, layer="cnn"
        )
        task = mmcam.Caption("a dog runs")
        maps = mmcam.explain(model, picture(), task, method="gradcam-signed")
        assert [explanation.label for explanation in maps] == ["a dog runs", "a", "dog", "runs"]
        tokens = letters.encode("a dog runs")
        logits = net(to_tensor(picture())[None], torch.tensor([[0, *tokens]]))[0]
        # A space belongs to the word that follows it.
        expected = float(logits[range(1, 5), tokens[1:5]].sum().detach())
        assert maps["dog"].score == pytest.approx(expected, rel=1e-5)
        generated = mmcam.explain(model, picture(), mmcam.Caption(max_new_tokens=9))
        assert generated.text is not None
        assert generated.text["caption"] == letters.decode(generated.text["tokens"]).strip()


def test_a_tokenizer_of_transformers_needs_no_more() -> None:
    tokenizer = word_pieces()
    net = lively(CnnLstm(tokens=len(tokenizer))).eval()
    model = mmcam.wrap_captioner(net, to_tensor, tokenizer=tokenizer, layer="cnn")
    assert (model.start, model.end) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    maps = mmcam.explain(model, picture(), mmcam.Caption("a brown dogball runs"))
    assert maps.text is not None
    assert maps.text["tokens"][-1] == tokenizer.sep_token_id
    named = mmcam.wrap_captioner(net, to_tensor, tokenizer=tokenizer, start="[DEC]", end=0)
    assert (named.start, named.end) == (tokenizer.convert_tokens_to_ids("[DEC]"), 0)
    tokenizer.cls_token = None
    with pytest.raises(ModelError, match=r"BertTokenizer of CnnLstm has no start token.*start="):
        mmcam.wrap_captioner(net, to_tensor, tokenizer=tokenizer)


def test_a_mapping_of_words_and_other_names_of_special_words() -> None:
    words = {
        word.strip("<>") if word in ("<start>", "<end>") else word: i
        for i, word in enumerate(WORDS)
    }
    net = NETS["lstm"]()
    for start, end in (("start", "end"), (1, 2)):
        model = mmcam.wrap_captioner(
            net, to_tensor, tokenizer=words, start=start, end=end, layer="cnn"
        )
        assert (model.start, model.end) == (START, END)
        maps = mmcam.explain(model, picture(), mmcam.Caption(FORCED, words=[]))
        assert maps.text is not None
        assert maps.text["tokens"] == FORCED_TOKENS
    with pytest.raises(
        ModelError, match=r"11 words of CnnLstm have no start token '<start>'; near"
    ):
        mmcam.wrap_captioner(net, to_tensor, tokenizer=words)
    with pytest.raises(ModelError, match=r"no end token 99.*end=\.\.\."):
        mmcam.wrap_captioner(net, to_tensor, tokenizer=words, start=1, end=99)


def test_a_limit_of_positions_holds() -> None:
    net = NETS["transformer"]()
    model = wrapped_net("transformer", net)
    maps = mmcam.explain(model, picture(3), mmcam.Caption(max_new_tokens=20))
    assert maps.text is not None
    assert len(maps.text["tokens"]) <= 12
    with pytest.raises(LabelError, match=r"has 12 tokens, and PatchTransformer takes at most 11"):
        mmcam.explain(model, picture(), mmcam.Caption("a dog " * 6))


def explained(net: Any, task: Any = None, **options: Any) -> Any:
    options = {"tokenizer": WORDS, "layer": "cnn", **options}
    model = mmcam.wrap_captioner(net, to_tensor, **options)
    return mmcam.explain(model, picture(), task or mmcam.Caption(FORCED))


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda net: lambda p, t: net(p, t)[:, :-1], r"shape \(1, 3, 11\) for tokens of shape \(1"),
        (lambda net: lambda p, t: net(p, t)[:, -1], r"logits of shape \(1, 11\) for tokens"),
        (
            lambda net: lambda p, t: net(p, t)[..., :8],
            r"for 8 tokens, but its tokenizer gives .* 9",
        ),
        (lambda net: lambda p, t: {"out": net(p, t)}, r"a dict, in .* \[batch, step, token\]"),
        (lambda net: lambda p: net(p, None), r"failed .* takes 1 positional argument but 2"),
        (lambda net: lambda p, t: net(p, t.flip(1)), r"change by .* later tokens.*causal mask"),
    ],
)
def test_what_forward_does_wrong_is_said_in_one_line(forward: Any, reason: str) -> None:
    net = NETS["lstm"]()
    with pytest.raises(ModelError, match=reason) as caught:
        explained(net, forward=forward(net))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "labels"), [(0, ["two"]), (np.array([0, 2]), ["two", "run"]), (["2"], ["run"])]
)
def test_words_are_chosen_by_position(
    words: Any, labels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    maps = explained(NETS["lstm"](), mmcam.Caption(FORCED, words=words))
    assert [explanation.label for explanation in maps[1:]] == labels


def test_an_encoder_may_be_given_as_a_module() -> None:
    net: Any = NETS["lstm"]()
    assert wrapped_net("lstm", net, encoder=net.cnn).encoder == "cnn"
    with pytest.raises(LayerError, match="the Linear given as a layer is not a part of CnnLstm"):
        wrapped_net("lstm", net, encoder=nn.Linear(1, 1))


def never_says_unknown(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """The forward of a model that suppresses `<unk>`."""
    suppressed = torch.tensor([WORDS.index("<unk>")])
    return lambda pixels, tokens: net(pixels, tokens).index_fill(2, suppressed, -torch.inf)


def test_a_suppressed_token_changes_no_other_word() -> None:
    net = NETS["lstm"]()
    task = mmcam.Caption(FORCED, score="mean-contrast")
    maps = explained(net, task, forward=never_says_unknown(net))
    logits = logits_by_hand(net.eval(), to_tensor(picture())[None], FORCED_TOKENS[:-1])
    for word, row, token in zip(maps[1:], logits, FORCED_TOKENS, strict=False):
        others = [i for i in range(len(WORDS)) if i not in (token, WORDS.index("<unk>"))]
        assert word.score == pytest.approx(
            float((row[token] - row[others].mean()).detach()), rel=1e-4
        )


def test_a_suppressed_token_does_not_hide_that_a_model_is_not_causal() -> None:
    net = lively(PatchTransformer(causal=False))
    with pytest.raises(ModelError, match="later tokens"):
        explained(net, layer="patches", forward=never_says_unknown(net))

    def only_ends_after_a_dog(pixels: Tensor, tokens: Tensor) -> Tensor:
        logits = torch.zeros(*tokens.shape, len(WORDS)) + pixels.mean()
        has_dogs = (tokens == WORDS.index("dogs")).any()
        return logits.index_fill(2, torch.tensor([3]), -torch.inf) if has_dogs else logits

    with pytest.raises(ModelError, match="change by inf when later tokens"):
        explained(net, layer="patches", forward=only_ends_after_a_dog)


class Features(NamedTuple):
    maps: Tensor
    pooled: Tensor


class NamedEncoder(nn.Module):
    """An encoder that returns its output by name."""

    def __init__(self, cnn: nn.Module) -> None:
        super().__init__()
        self.cnn = cnn

    def forward(self, pixels: Tensor) -> Features:
        maps = self.cnn(pixels)
        return Features(maps, maps.mean((2, 3)))


class OfNamedEncoder(CnnLstm):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = NamedEncoder(self.cnn)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        picture = self.encoder(pixels).pooled[:, None]
        states, _ = self.lstm(torch.cat([picture, self.embed(tokens)], 1))
        logits: Tensor = self.out(states[:, 1:])
        return logits


def test_an_encoder_with_a_named_tuple_runs_once() -> None:
    net = lively(OfNamedEncoder(), 32)
    task = mmcam.Caption(max_new_tokens=LENGTH, num_beams=2)
    plain, named = (explained(net, task, **options) for options in ({}, {"encoder": "encoder"}))
    assert plain.text["tokens"] == named.text["tokens"]
    for one, other in zip(plain, named, strict=True):
        torch.testing.assert_close(one.cam, other.cam, rtol=1e-4, atol=1e-6)


def test_a_decoder_without_a_causal_mask_is_refused() -> None:
    net = lively(PatchTransformer(causal=False))
    with pytest.raises(ModelError, match=r"of PatchTransformer change by .*a causal mask"):
        explained(net, layer="patches")


def test_attention_of_another_shape_is_refused() -> None:
    net = NETS["attention"]()
    flat = lambda p, t: (net(p, t)[0], net(p, t)[1].flatten(2))  # noqa: E731
    with pytest.raises(ModelError, match=r"attention of shape \(1, 4, 80\).*step, height, width"):
        explained(net, forward=flat, attention=True)
    with pytest.raises(ModelError, match=r"attention of shape none"):
        explained(NETS["lstm"](), attention=True)


def test_wrong_steps_are_refused() -> None:
    net: Any = NETS["lstm"]()
    with pytest.raises(ModelError, match=r"with step but without initial_state"):
        explained(net, step=net.step)
    with pytest.raises(ModelError, match=r"with attention=True but without forward"):
        explained(net, step=net.step, initial_state=net.initial_state, attention=True)

    def untransposed(pixels: Tensor) -> Any:
        return tuple(part.transpose(0, 1).repeat(2, 1, 1) for part in net.initial_state(pixels))

    wrong: list[tuple[dict[str, Any], str]] = [
        ({"initial_state": untransposed}, r"shapes \(2, 1, 8\), \(2, 1, 8\) for 1 pict.*transpose"),
        ({"initial_state": lambda p: p}, r"returns a Tensor; let it return a tuple"),
        ({"step": lambda s, t: net.step(s, t)[0]}, r"step of CnnLstm returns a Tensor"),
        ({"step": lambda s, t: (net.step(s, t)[0][0], s)}, r"returns logits \(11,\) for 1 rows"),
    ]
    for options, reason in wrong:
        given = {"step": net.step, "initial_state": net.initial_state, **options}
        for task in (mmcam.Caption(FORCED), mmcam.Caption()):
            with pytest.raises(ModelError, match=reason):
                explained(net, task, **given)


def test_an_encoder_that_is_none_is_refused() -> None:
    net = NETS["lstm"]()
    with pytest.raises(ModelError, match=r"CnnLstm has no part 'cmn'; nearest: cnn"):
        explained(net, encoder="cmn")
    net.spare = nn.Identity()
    with pytest.raises(ModelError, match=r"encoder='spare' of CnnLstm runs 0 times for a picture"):
        explained(net, mmcam.Caption(), encoder="spare")


@pytest.mark.parametrize(
    ("encode", "decode", "error", "reason"),
    [
        (
            lambda text: [0, *Letters().encode(text), 1],
            Letters().decode,
            ModelError,
            r"contains the start token 0.*without special tokens",
        ),
        (
            lambda text: [*Letters().encode(text), 1],
            Letters().decode,
            ModelError,
            r"contains the end token 1",
        ),
        (
            lambda text: Letters().encode(text)[:-1],
            Letters().decode,
            LabelError,
            r'cannot generate "a dog".*decode to "a do"',
        ),
        (Letters().encode, lambda tokens: tokens, ModelError, r"decode .* returns \[3, 2.*one str"),
        (Letters().encode, lambda tokens: {}[1], ModelError, r"decode of .* failed .*KeyError"),
        (
            lambda text: {}[text],
            Letters().decode,
            LabelError,
            r"encode .* failed on \"a dog\" \(Ke",
        ),
        (lambda text: {"input_ids": [3]}, Letters().decode, ModelError, r"list of token numbers"),
    ],
)
def test_wrong_functions_of_a_tokenizer_are_refused(
    encode: Any, decode: Any, error: type[Exception], reason: str
) -> None:
    net = lively(CnnLstm(tokens=len(LETTERS) + 2))
    with pytest.raises(error, match=reason) as caught:
        explained(net, mmcam.Caption("a dog"), tokenizer=(encode, decode), start=0, end=1)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_its_special_tokens_is_refused() -> None:
    net = NETS["lstm"]()
    with pytest.raises(ModelError, match=r"with end=None; give the number of the end token"):
        explained(net, tokenizer=Letters(), start=0)
    with pytest.raises(ModelError, match=r"with start=None; give the number of the start token"):
        explained(net, tokenizer=Letters(), end=1)
    with pytest.raises(ModelError, match=r"tokenizer of CnnLstm is a int; give a list of words"):
        explained(net, tokenizer=3)


def test_tensors_and_arrays_are_tokens_too() -> None:
    net = lively(CnnLstm(tokens=len(LETTERS) + 2))
    for kind in (torch.tensor, np.array, tuple):
        encode = lambda text, kind=kind: kind(Letters().encode(text))  # noqa: E731
        maps = explained(
            net, mmcam.Caption("a dog"), tokenizer=(encode, Letters().decode), start=0, end=1
        )
        assert [explanation.label for explanation in maps] == ["a dog", "a", "dog"]


def test_words_that_the_list_lacks_are_named() -> None:
    with pytest.raises(LabelError, match=r"lacks 'cats' \(nearest: .*\)"):
        explained(NETS["lstm"](), mmcam.Caption("two cats"))
    with pytest.raises(LabelError, match="takes no prompt"):
        explained(NETS["lstm"](), mmcam.Caption(prompt="a"))
