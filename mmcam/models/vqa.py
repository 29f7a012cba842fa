"""Wrap a user's own VQA model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from mmcam.adapters.base.answerer import AnswerClassifier
from mmcam.adapters.base.classifier import Probability, logits_of
from mmcam.adapters.base.preprocess import Preprocess, Transform
from mmcam.capture.layers import Layer
from mmcam.errors import ModelError, nearest
from mmcam.models.labels import Labels, label_names
from mmcam.models.wrap import encode_question as encode
from mmcam.models.wrap import grid_options, layer_names, name_of, preprocessing


def wrap_vqa(
    module: nn.Module,
    prepare: Callable[[Any], Tensor] | Preprocess | Transform | None = None,
    *,
    encode_question: Callable[[str], Any],
    answers: Labels,
    logits: Callable[[Any], Tensor] = logits_of,
    attention: bool = False,
    words: Callable[[str], Sequence[tuple[str, int, int]]] | None = None,
    word_embedding: Layer | None = None,
    layer: Layer | Sequence[Layer] | None = None,
    grid: Callable[[str, Tensor, Sequence[int]], Tensor] | None = None,
    probability: Probability = "softmax",
    name: str | None = None,
) -> AnswerClassifier:
    """Wrap a model of your own that answers questions by classification, ready to be explained.

    The module is called with the pixels `[batch, 3, h, w]`, then with the encoded questions.

    Args:
        module: the VQA model, in any mode and on any device; it is not changed.
        prepare: the model's transform of one PIL image into `[3, h, w]`, or a `Preprocess`; the
            usual ImageNet preprocessing (short side 256, centre crop 224) when None.
        encode_question: turns a question into the module's arguments after the pixels: a tensor, or
            a tuple of tensors, without a batch axis. Questions whose tensors differ in shape, such
            as in the number of tokens, are run in separate batches.
        answers: the names of the answers, in the order of the logits: a list, or a mapping from the
            number of each answer to its name.
        logits: extracts `[batch, answers]` from the module's output.
        attention: whether the module returns (logits, attention `[batch, level, height, width]`),
            for the method "attention", which averages the levels.
        words: the words of a question, each as (word, start, stop): the positions of its tokens in
            the output of `word_embedding`. With it, each answer is also attributed to the words
            (gradient x input at the embedding).
        word_embedding: the layer (a name or a module) that embeds the question's tokens, with an
            output `[batch, token, width]`; needed for `words`.
        layer: the layers to explain by default; found by a probe when None.
        grid: as for `mmcam.wrap`.
        probability: as for `mmcam.wrap`.
        name: the model's name in results.

    Raises:
        ModelError: `module` is no module, `prepare` cannot be called, only one of `words` and
            `word_embedding`, no such layer, or no answers. What the functions return is checked
            when they run.
        LayerError: a module in `layer`, or `word_embedding`, is not a part of `module`.

    Example:
        >>> model = mmcam.wrap_vqa(net, transform, encode_question=tokens_of, answers=names)
        >>> maps = mmcam.explain(model, "photo.jpg", mmcam.Answers("what colour is the ball?"))
    """
    name = name_of(module, name)
    labels = () if isinstance(answers, str) else label_names(answers)
    if not labels:
        raise ModelError(
            f"{name} is wrapped with answers={answers!r}; give the names of its answers as a list, "
            "in the order of the logits"
        )
    if (words is None) != (word_embedding is None):
        given, missing = ("words", "word_embedding") if words else ("word_embedding", "words")
        raise ModelError(f"{name} is wrapped with {given} but without {missing}; give both")
    if word_embedding is not None:
        (word_embedding,) = layer_names(module, word_embedding, name)
    parts = [part for part, _ in module.named_modules() if part]
    if word_embedding is not None and word_embedding.partition("#")[0] not in parts:
        raise ModelError(
            f"{name} has no layer '{word_embedding}'; nearest: {nearest(word_embedding, parts)}"
        )
    return AnswerClassifier(
        name=name,
        model=module,
        preprocess=preprocessing(prepare),
        labels=labels,
        layers=layer_names(module, layer, name),
        unpack=logits,
        encode_question=partial(encode, encode_question, words=words),
        word_embedding=word_embedding,
        has_attention=attention,
        probability=probability,
        **grid_options(grid),
    )
