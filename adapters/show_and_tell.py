"""Show-and-Tell and Show, Attend and Tell over any CNN of torchvision or timm."""

from __future__ import annotations

from collections.abc import Sequence

from mmcam.adapters.base.cnn_part import cnn_part
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.base.recurrent_captioner import RecurrentCaptioner
from mmcam.adapters.base.vocabulary import read_vocabulary
from mmcam.adapters.networks.show_and_tell import ShowAndTell
from mmcam.adapters.networks.show_attend_tell import ShowAttendTell
from mmcam.errors import ModelError


def names() -> Sequence[str]:
    """No names: these models need a model folder with a vocabulary and weights."""
    return []


def load(recipe: Recipe) -> RecurrentCaptioner:
    """A captioner from a model folder: `cnn`, `vocabulary`, `special`, `args`, `weights`.

    `recipe.args` are those of `networks.show_and_tell.ShowAndTell` or, for the family
    "show_attend_tell", of `networks.show_attend_tell.ShowAttendTell`.

    Raises:
        ModelError: no CNN or vocabulary, a CNN that cannot be split, a vocabulary that cannot be
            read or lacks a special token, or wrong preprocessing.
        WeightsError: the weights do not fit.
    """
    cnn = None if recipe.vocabulary is None else cnn_part(recipe)
    if cnn is None or recipe.vocabulary is None:
        raise ModelError(
            f'{recipe.title} needs a model folder whose mmcam.json names its "cnn" (a recipe of '
            'timm or torchvision) and its "vocabulary" (a JSON list of words)'
        )
    vocabulary = read_vocabulary(recipe.vocabulary, recipe.special)
    sizes = {"vocabulary": len(vocabulary.words), **recipe.args, "start": vocabulary.token("start")}
    has_attention = recipe.family == "show_attend_tell"
    model = (
        ShowAttendTell(cnn.trunk, **{"channels": cnn.channels, **sizes})
        if has_attention
        else ShowAndTell(cnn.trunk, cnn.head, **{"features": cnn.features, **sizes})
    )
    return RecurrentCaptioner(
        name=recipe.title,
        model=model,
        preprocess=recipe.preprocessing(cnn.preprocess),
        tokenizer=vocabulary,
        layers=recipe.layers or ("cnn",),
        weights=recipe.load_decoder_weights(model),
        to_grid=cnn.to_grid,
        has_attention=has_attention,
    )
