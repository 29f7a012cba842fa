"""Load the adapter of a model by its name or from a model folder."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmcam.adapters.base.captioner import CaptionAdapter
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.recipe import Recipe
from mmcam.capture.layers import resolve
from mmcam.capture.model_state import untouched
from mmcam.capture.probe import default_layer, spatial_layers
from mmcam.capture.proof import ProvenLayouts
from mmcam.errors import LabelError, LayerError, MmcamError, ModelError, nearest, reason_of
from mmcam.models.families import FAMILIES
from mmcam.models.folder import folder_recipe
from mmcam.models.labels import Labels, read_labels
from mmcam.models.wrap import from_factory
from mmcam.tasks import Answers, Caption, Classes
from mmcam.types import Adapter, Inputs, Sample, SpatialLayer

PROBE_TASKS = (Classes(), Caption(), Answers("what is it?"))
"""Tasks of which every model takes one; the layers with a grid do not depend on it."""

UNTRAINED = "random"
"""The value of `weights` for an untrained model."""


def load(
    model: str | Path,
    *,
    weights: str | Path | None = None,
    labels: str | Path | Labels | None = None,
    layers: str | Sequence[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
) -> Adapter:
    """Load a model by name, ready to be explained.

    Args:
        model: `family:name` (see `FAMILIES`), a folder with `mmcam.json`, or
            `package.module:factory`, a function that returns the result of `wrap`.
        weights: a safetensors file, or a checkpoint that loads with `weights_only=True`; by default
            those of the folder or the factory, or the library's own pretrained weights, which it
            may download; "random" for an untrained model (not for a factory).
        labels: class names in the order of the classes: a list, a mapping from the number of each
            class to its name (such as `id2label`), or a file with one name per line.
        layers: the layers to explain by default, as names.
        device: the torch device of the model.
        dtype: the floating-point type of the weights, such as `torch.bfloat16` or "bfloat16"; that
            of the library when None.
        revision: a branch, tag or commit of a model of transformers on the hub (`hf:owner/name`).

    Raises:
        ModelError: no such model, a broken folder, a factory that fails, an unreadable file of
            labels, labels of another kind, a device that cannot be used, a `dtype` that is not
            floating-point, or a `revision` of a model that has none.
        LayerError: `layers` are not names.
        WeightsError: the weights do not fit, are missing or cannot be downloaded, or "random" for a
            factory.
        MissingExtra: the model's processor needs a package that is not installed.
    """
    name = str(model)
    overrides: dict[str, Any] = {}
    if labels is not None:
        overrides["labels"] = read_labels(labels)
    if layers is not None:
        overrides["layers"] = _names_of_layers(layers)
    if weights is not None:
        untrained = weights == UNTRAINED
        overrides |= (
            {"weights": None, "pretrained": False} if untrained else {"weights": Path(weights)}
        )
    floating = None if dtype is None else _floating(dtype)
    family, _, rest = name.partition(":")
    if revision is not None:
        if family != "hf" or Path(rest).is_dir():
            raise ModelError(
                f"'{name}' has no revision '{revision}'; revisions are of models of transformers "
                "on the hub (hf:owner/name): leave it out"
            )
        overrides["revision"] = revision
    if Path(name).is_dir():
        adapter = build(folder_recipe(Path(name), overrides))
    elif family in FAMILIES:
        adapter = build(Recipe(**{"family": family, "name": rest, **overrides}))
    elif rest and all(part.isidentifier() for part in family.split(".")):
        adapter = from_factory(family, rest, name, overrides)
    else:
        examples = [row.example for row in FAMILIES.values()]
        raise ModelError(
            f"there is no model '{name}'; nearest: {nearest(name, examples)}. Give family:name "
            f"(families: {', '.join(FAMILIES)}), a folder with mmcam.json, or "
            "package.module:factory"
        )
    try:
        adapter.model.to(device=device, dtype=floating)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"device '{device}' cannot be used ({reason}); try cpu") from error
    return adapter


def _names_of_layers(layers: str | Sequence[str]) -> tuple[str, ...]:
    """The argument `layers` of `load` as a tuple.

    Raises:
        LayerError: they are not names.
    """
    names = [layers] if isinstance(layers, (str, nn.Module)) else list(layers)
    for name in names:
        if not isinstance(name, str):
            raise LayerError(
                f"load is given a {type(name).__name__} as a layer, but the model is not yet in "
                "memory; give the layer's name, or give the module to explain(..., layers=...)"
            )
    return tuple(names)


def _floating(dtype: torch.dtype | str) -> torch.dtype:
    """A floating-point type, by itself or by name.

    Raises:
        ModelError: there is no such type.
    """
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(
            f"dtype={dtype!r} is not a floating-point type; give float32, bfloat16, float16 or "
            "float64"
        )
    return found


def build(recipe: Recipe) -> Adapter:
    """Build the adapter of a recipe.

    Raises:
        ModelError: there is no such family or model, or the model cannot be built as described.
        WeightsError: the weights do not fit, are missing or cannot be downloaded.
        MissingExtra: the model's processor needs a package that is not installed.
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
    except MmcamError:
        raise
    except Exception as error:
        wrong_args = isinstance(error, (TypeError, ValueError, AssertionError)) and recipe.args
        if _is_own(error) and not wrong_args:
            raise  # not an error of the user's
        described = f" with the arguments {dict(recipe.args)}" if recipe.args else ""
        remedy = 'fix "args"' if wrong_args else 'check its name, its "args" and its configuration'
        raise ModelError(
            f"{recipe.title} cannot be built{described} "
            f"({type(error).__name__}: {reason_of(error)}); {remedy}"
        ) from error
    add_layouts(adapter)
    adapter.model.eval()  # libraries build their models in training mode
    return adapter


def add_layouts(adapter: Adapter) -> None:
    """Let an adapter of mmcam find the layouts of its layers, if its family uses them."""
    if isinstance(adapter, (Classifier, CaptionAdapter)) and adapter.uses_layouts:
        adapter.layouts = ProvenLayouts()


def _is_own(error: Exception) -> bool:
    """Whether an exception was raised in mmcam's own code, not in a library."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("mmcam.")


def model_names(match: str = "") -> list[str]:
    """The names of all models that the families can list and that contain `match`."""
    names: list[str] = []
    for family, row in FAMILIES.items():
        family_names: Sequence[str] = importlib.import_module(row.module).names()
        names += [f"{family}:{name}" if name else family for name in family_names]
    return [name for name in names if match.casefold() in name.casefold()]


def layers_of(
    model: str | Path, weights: str | Path | None = None
) -> tuple[Sequence[str], Sequence[SpatialLayer]]:
    """A model's default layers, and all its layers with a grid, for a grey picture or clip.

    Pretrained weights are not downloaded; only a model folder and a weights file are read.

    Raises:
        LabelError: the model takes no class, caption or simple question.
        LayerError: the model has no such default layer, or no layer with a grid.
        MmcamError: as `load`; ModelError if the model fails on the grey picture or clip.
    """
    has_own_weights = Path(model).is_dir() or _is_factory(str(model))
    adapter = load(model, weights=weights or (None if has_own_weights else UNTRAINED))
    frames = [adapter.window.frames] if adapter.window else []
    sample = Sample(pixels=np.full((*frames, 288, 384, 3), 128, dtype=np.uint8), id="grey")
    inputs = _inputs_of(adapter, sample)
    layers = spatial_layers(adapter, inputs)
    default = list(adapter.layers) or [default_layer(adapter, inputs, layers=layers)]
    return resolve(adapter.model, default, adapter.name), layers


def _inputs_of(adapter: Adapter, sample: Sample) -> Inputs:
    """The model's input for a sample, with a generated caption or a question if it takes one.

    Raises:
        LabelError: the model takes none of `PROBE_TASKS`.
        ModelError: the model fails on the sample.
    """
    for number, task in enumerate(PROBE_TASKS, 1):
        try:
            with untouched(adapter.model):  # the model may generate a caption
                return adapter.prepare([sample], task)
        except LabelError:
            if number == len(PROBE_TASKS):
                raise
    raise AssertionError("unreachable")


def _is_factory(name: str) -> bool:
    return name.partition(":")[0] not in FAMILIES
