"""LSTM and co-attention VQA models over any CNN of torchvision or timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmcam.adapters.base.answerer import AnswerClassifier
from mmcam.adapters.base.classifier import logits_of
from mmcam.adapters.base.cnn_part import cnn_part
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.base.vocabulary import SPECIAL, QuestionTokenizer, read_words
from mmcam.adapters.networks.co_attention import CoAttention
from mmcam.adapters.networks.lstm_vqa import LstmVqa
from mmcam.errors import ModelError


def names() -> Sequence[str]:
    """No names: these models need a model folder with a vocabulary and weights."""
    return []


def load(recipe: Recipe) -> AnswerClassifier:
    """A VQA model from a model folder: `cnn`, `vocabulary`, `labels` (answers), `args`, `weights`.

    `recipe.args` are those of `networks.lstm_vqa.LstmVqa` or, for the family "co_attention", of
    `networks.co_attention.CoAttention`.

    Raises:
        ModelError: no CNN, vocabulary or answers, a CNN that cannot be split, a vocabulary that
            cannot be read or lacks the unknown token, an unknown kind of co-attention, or
            wrong preprocessing.
        WeightsError: the weights do not fit.
    """
    cnn = cnn_part(recipe) if recipe.vocabulary is not None and recipe.labels else None
    if cnn is None or recipe.vocabulary is None:
        raise ModelError(
            f'{recipe.title} needs a model folder whose mmcam.json names its "cnn" (a recipe of '
            'timm or torchvision), its "vocabulary" (a JSON list of words) and its answers '
            '("labels", one per line)'
        )
    words = read_words(recipe.vocabulary)
    special = {**SPECIAL, **recipe.special}
    limit = {} if recipe.max_question_tokens is None else {"max_tokens": recipe.max_question_tokens}
    sizes: dict[str, Any] = {"vocabulary": len(words), "answers": len(recipe.labels)}
    has_attention = recipe.family == "co_attention"
    model: nn.Module = (
        CoAttention(cnn.trunk, **{"channels": cnn.channels, **sizes, **recipe.args})
        if has_attention
        else LstmVqa(cnn.trunk, cnn.head, **{"features": cnn.features, **sizes, **recipe.args})
    )
    return AnswerClassifier(
        name=recipe.title,
        model=model,
        preprocess=recipe.preprocessing(cnn.preprocess),
        labels=recipe.labels,
        layers=recipe.layers or ("cnn",),
        weights=recipe.load_decoder_weights(model),
        unpack=logits_of,
        to_grid=cnn.to_grid,
        encode_question=QuestionTokenizer(words, special["unknown"], **limit),
        word_embedding="embed",
        has_attention=has_attention,
        pads_questions=True,
        encoder="cnn",
        gradient_strategy="batched",
    )
