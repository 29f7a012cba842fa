"""From a model's name, or a model folder, to its adapter."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcam.adapters.base.recipe import Recipe
from mmcam.capture.layers import resolve
from mmcam.capture.probe import SpatialLayer, default_layer, spatial_layers
from mmcam.errors import ModelError, nearest, reason_of
from mmcam.models.families import FAMILIES
from mmcam.models.folder import folder_recipe, read_labels
from mmcam.models.wrap import from_factory
from mmcam.tasks import Classes
from mmcam.types import Adapter, Sample

UNTRAINED = "random"
"""As `weights`, asks for the model with untrained weights."""


def load(
    model: str | Path,
    *,
    weights: str | Path | None = None,
    labels: str | Path | Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    device: str = "cpu",
) -> Adapter:
    """A model by name, ready to be explained.

    Args:
        model: `family:name` (see `FAMILIES`), a folder with `mmcam.json`, or
            `package.module:factory`, a function that returns what `wrap` gives.
        weights: a safetensors file, or a checkpoint that loads with `weights_only=True`; without
            one the library's own pretrained weights, which it may download; "random" for none.
        labels: class names, line i for class i: a file or a list.
        layers: the layers explained by default.
        device: where the model runs, as torch names it.

    Raises:
        ModelError: no such model, a broken folder, a factory that fails.
        WeightsError: the weights do not fit.
    """
    name = str(model)
    overrides: dict[str, Any] = {}
    if labels is not None:
        overrides["labels"] = read_labels(labels)
    if layers is not None:
        overrides["layers"] = (layers,) if isinstance(layers, str) else tuple(layers)
    if weights is not None:
        untrained = weights == UNTRAINED
        overrides |= (
            {"weights": None, "pretrained": False} if untrained else {"weights": Path(weights)}
        )
    family, _, rest = name.partition(":")
    if Path(name).is_dir():
        adapter = build(folder_recipe(Path(name), overrides))
    elif family in FAMILIES:
        adapter = build(Recipe(**{"family": family, "name": rest, **overrides}))
    elif rest and all(part.isidentifier() for part in family.split(".")):
        adapter = from_factory(family, rest, name, overrides)
    else:
        known = [row.example for row in FAMILIES.values()]
        raise ModelError(
            f"there is no model '{name}'; nearest: {nearest(name, known)}. Give family:name "
            f"(families: {', '.join(FAMILIES)}), a folder with mmcam.json, or "
            "package.module:factory"
        )
    try:
        adapter.model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"device '{device}' cannot be used ({reason}); try cpu") from error
    return adapter


def build(recipe: Recipe) -> Adapter:
    """The adapter that a recipe describes.

    Raises:
        ModelError: there is no such family or model, or it does not take the arguments.
        WeightsError: the weights do not fit.
    """
    if recipe.family not in FAMILIES:
        raise ModelError(
            f"there is no family '{recipe.family}'; nearest: {nearest(recipe.family, FAMILIES)}"
        )
    parts = {name: build(part) for name, part in recipe.parts.items()}
    recipe = replace(recipe, parts=parts)
    loader: Callable[[Recipe], Adapter] = importlib.import_module(
        FAMILIES[recipe.family].module
    ).load
    try:
        adapter = loader(recipe)
    except (TypeError, ValueError, AssertionError) as error:
        if not recipe.args:
            raise
        raise ModelError(
            f"{recipe.title} cannot be built with the arguments {dict(recipe.args)} "
            f'({reason_of(error)}); mend "args"'
        ) from error
    adapter.model.eval()  # libraries build their models to be trained
    return adapter


def model_names(match: str = "") -> list[str]:
    """The names of all models that the families can list, with `match` in them."""
    names: list[str] = []
    for family, row in FAMILIES.items():
        listed: Sequence[str] = importlib.import_module(row.module).names()
        names += [f"{family}:{name}" if name else family for name in listed]
    return [name for name in names if match.casefold() in name.casefold()]


def layers_of(
    model: str | Path, weights: str | Path | None = None
) -> tuple[Sequence[str], list[SpatialLayer]]:
    """A model's default layers, and all its layers with a grid, on a grey picture or clip.

    Only a model folder and a weights file are read; pretrained weights are not downloaded for it.
    """
    known = weights or (None if Path(model).is_dir() or _is_factory(str(model)) else UNTRAINED)
    adapter = load(model, weights=known)
    frames = [adapter.window.frames] if adapter.window else []
    sample = Sample(pixels=np.full((*frames, 288, 384, 3), 128, dtype=np.uint8), id="grey")
    with torch.inference_mode(False):
        inputs = adapter.prepare([sample], Classes())
    layers = spatial_layers(adapter, inputs)
    default = list(adapter.layers) or [default_layer(adapter, inputs)]
    return resolve(adapter.model, default, adapter.name), layers


def _is_factory(name: str) -> bool:
    return name.partition(":")[0] not in FAMILIES
