"""The VQA networks of the papers over any CNN of torchvision or timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmcam.adapters.base.answerer import AnswerClassifier
from mmcam.adapters.base.classifier import logits_of
from mmcam.adapters.base.cnn_part import cnn_part
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.base.vocabulary import SPECIAL, QuestionWords, read_words
from mmcam.adapters.networks.co_attention import CoAttention
from mmcam.adapters.networks.lstm_vqa import LstmVqa
from mmcam.errors import ModelError


def names() -> Sequence[str]:
    """None that can be had by name: a vocabulary and weights are needed, in a model folder."""
    return []


def load(recipe: Recipe) -> AnswerClassifier:
    """A model of answers from a folder: `cnn`, `vocabulary`, `labels` (answers), `args`, `weights`.

    `recipe.args` are those of `networks.lstm_vqa.LstmVqa` or, for the family "co_attention", of
    `networks.co_attention.CoAttention`.

    Raises:
        ModelError: no CNN, vocabulary or answers, or the CNN cannot be cut in two.
        WeightsError: the weights do not fit.
    """
    cnn = cnn_part(recipe) if recipe.vocabulary is not None and recipe.labels else None
    if cnn is None or recipe.vocabulary is None:
        raise ModelError(
            f'{recipe.title} needs a model folder whose mmcam.json names its "cnn" (a recipe of '
            'timm or torchvision), its "vocabulary" (a JSON list of words) and its answers '
            '("labels", one a line)'
        )
    words = read_words(recipe.vocabulary)
    special = {**SPECIAL, **recipe.special}
    limit = {} if recipe.question_limit is None else {"limit": recipe.question_limit}
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
        weights=recipe.fill_decoder(model),
        unpack=logits_of,
        to_grid=cnn.to_grid,
        read=QuestionWords(words, special["unknown"], **limit),
        words="embed",
        has_attention=has_attention,
        encoder="cnn",
        gradient_strategy="batched",
    )
