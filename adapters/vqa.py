"""The VQA networks of the papers over any CNN of torchvision or timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmcam.adapters.answerer import Answerer
from mmcam.adapters.classifier import Classifier, logits_of
from mmcam.adapters.networks.cnn import halves, width
from mmcam.adapters.networks.co_attention import CoAttention
from mmcam.adapters.networks.lstm_vqa import LstmVqa
from mmcam.adapters.preprocess import Preprocess
from mmcam.adapters.recipe import Recipe
from mmcam.adapters.vocabulary import SPECIAL, QuestionWords, read_words
from mmcam.errors import ModelError

PROBE = 224
"""The side of the picture that tells how wide a CNN's features are, in pixels."""


def names() -> Sequence[str]:
    """None that can be had by name: a vocabulary and weights are needed, in a model folder."""
    return []


def load(recipe: Recipe) -> Answerer:
    """A model of answers from a folder: `cnn`, `vocabulary`, `labels` (answers), `args`, `weights`.

    `recipe.args` are those of `networks.lstm_vqa.LstmVqa` or, for the family "co_attention", of
    `networks.co_attention.CoAttention`.

    Raises:
        ModelError: no CNN, vocabulary or answers, or the CNN cannot be cut in two.
        WeightsError: the weights do not fit.
    """
    cnn = recipe.parts.get("cnn")
    if (
        not isinstance(cnn, Classifier)
        or not isinstance(cnn.preprocess, Preprocess)
        or recipe.vocabulary is None
        or not recipe.labels
    ):
        raise ModelError(
            f'{recipe.title} needs a model folder whose mmcam.json names its "cnn" (a recipe of '
            'timm or torchvision), its "vocabulary" (a JSON list of words) and its answers '
            '("labels", one a line)'
        )
    words = read_words(recipe.vocabulary)
    special = {**SPECIAL, **recipe.special}
    limit = {} if recipe.question_limit is None else {"limit": recipe.question_limit}
    sizes: dict[str, Any] = {"vocabulary": len(words), "answers": len(recipe.labels)}
    trunk, head = halves(cnn.model, cnn.layers[0], cnn.name)
    channels, features = width(trunk, head, PROBE)
    attends = recipe.family == "co_attention"
    model: nn.Module = (
        CoAttention(trunk, **{"channels": channels, **sizes, **recipe.args})
        if attends
        else LstmVqa(trunk, head, **{"features": features, **sizes, **recipe.args})
    )
    return Answerer(
        name=recipe.title,
        model=model,
        preprocess=recipe.preprocessing(cnn.preprocess),
        labels=recipe.labels,
        layers=recipe.layers or ("cnn",),
        weights=recipe.fill_decoder(model),
        unpack=logits_of,
        folds=lambda layer, tensor, space: cnn.folds(layer.removeprefix("cnn."), tensor, space),
        read=QuestionWords(words, special["unknown"], **limit),
        words="embed",
        attends=attends,
        encoder="cnn",
        way="fan-out",
    )
