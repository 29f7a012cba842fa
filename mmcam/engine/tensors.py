"""`cams`: raw maps from a module's own input, without preprocessing and without results."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.adapters.base.classifier import ToGrid, reject_layer
from mmcam.adapters.base.tensors import Arguments, TensorModel
from mmcam.capture.layers import Layer, layer_patterns, resolve
from mmcam.capture.probe import default_layer
from mmcam.capture.proof import KeptModule, kept, size_of
from mmcam.engine.batch import Targets, explain_batch
from mmcam.errors import InputError, LabelError, LayerError, MethodError, ModelError
from mmcam.methods import METHODS
from mmcam.methods.plan import Plan, split
from mmcam.types import Inputs, Target

ClassNumbers = SupportsIndex | Sequence[int] | np.ndarray | Tensor
Maps = Float[Tensor, "batch *grid"]


def cams(
    module: nn.Module,
    inputs: Any,
    target: ClassNumbers | Target | Callable[[Any], Tensor] | None,
    layers: Layer | Sequence[Layer] | None = None,
    *,
    method: str = "gradcam",
    differentiable: bool = False,
    grid: ToGrid | None = None,
) -> Any:
    """The raw maps of a module's own input: tensors in, tensors out.

    The module runs in evaluation mode and is left as it was found: its modes, hooks, parameters and
    their gradients, and the random state.

    Args:
        module: any module.
        inputs: what the module takes: a tensor `[batch, channel, *space]` with any number of
            channels, a tuple of its arguments, or a dict of its keyword arguments. Of several
            tensors, the maps are those of the first floating one with the most axes.
        target: a class number, or one for each row; a `Target`; or a function from the module's
            output to one score for each row `[batch]`. None explains each row's highest logit.
        layers: a layer's name or the layer itself; or a sequence of these. None for the last layer
            whose grid has a gradient. Methods at the pixels ("gradient", "guided") need none.
        method: a name of `mmcam.METHODS`, or a product such as "guided-gradcam".
        differentiable: the maps have a graph to the parameters that require gradients, and to
            `inputs`, so that a loss may depend on them.
        grid: as in `mmcam.wrap`.

    Returns:
        The maps `[batch, *grid]`, signed or not as the method defines them, not normalised; those
        of a method at the pixels are `[batch, channel, *space]`. For a sequence of layers, a dict
        from each layer's name to its maps.

    Raises:
        MmcamError: an argument that does not fit the module, or a module that fails; the message
            gives the value, the reason and the remedy.

    Example:
        >>> maps = mmcam.cams(model, images, labels, model.layer4)
        >>> loss = criterion(model(images), labels)
        >>> outside = mmcam.cams(model, images, labels, model.layer4, differentiable=True)[~masks]
        >>> (loss + outside.square().mean()).backward()
    """
    plan = Plan.of([method], False)
    if differentiable:
        _check_differentiable(method)
    if not isinstance(module, nn.Module):
        remedy = "its `model`" if hasattr(module, "model") else "a module"
        raise ModelError(f"a {type(module).__name__} is no torch module; give {remedy}")
    arguments, known = Arguments(inputs), kept(module)
    layouts = known.layouts_for(grid)
    model = TensorModel(module, arguments, layouts, grid or reject_layer)
    with torch.inference_mode(False):
        model_inputs = arguments.as_inputs(detached=not differentiable)
        if plan.needs("pixels") and not model_inputs.pixels.is_floating_point():
            raise InputError(
                f"'{method}' is a gradient at the pixels, which are {model_inputs.pixels.dtype}; "
                "give floats"
            )
        targets_of = partial(_targets, model, target, len(model_inputs.pixels))
        names = _names(model, model_inputs, layers, targets_of, known) if plan.needs_layers else []
        layouts.prove(model, model_inputs, names)
        batch = explain_batch(
            model, model_inputs, names, plan, targets_of, differentiable=differentiable
        )
    (slot,) = batch.slots
    maps = {found.layer: found.cams for found in slot}
    is_list = isinstance(layers, Sequence) and not isinstance(layers, str)
    return maps if is_list and plan.needs_layers else next(iter(maps.values()))


def _names(
    model: TensorModel,
    inputs: Inputs,
    layers: Layer | Sequence[Layer] | None,
    targets_of: Callable[[Any], Targets],
    known: KeptModule,
) -> list[str]:
    """The names of the layers; the default layer for the first row's target if None.

    Raises:
        LayerError: a layer that the model lacks, or one name that matches several layers.
        ModelError: the model fails.
    """
    if layers is None:
        size = size_of(inputs)
        if size not in known.default_layers:
            score = partial(_first_score, targets_of)
            known.default_layers[size] = default_layer(model, inputs, score, whole_batch=True)
        return [known.default_layers[size]]
    is_list = isinstance(layers, Sequence) and not isinstance(layers, str)
    if is_list and not layers:
        raise LayerError("the list of layers is empty; name one or more, or give None")
    names = resolve(model.model, layer_patterns(model.model, layers, model.name), model.name)
    if not is_list and len(names) > 1:
        raise LayerError(
            f"layers='{layers}' matches {len(names)} layers ({', '.join(names[:3])}, ...); give a "
            "list to get the maps of all of them"
        )
    return names


def _check_differentiable(method: str) -> None:
    """Check that a method's map is a differentiable function of activations and gradients.

    Raises:
        MethodError: it is not.
    """
    for part in filter(None, split(method)):
        row = METHODS[part]
        if row.needs not in ("gradient", "pixels") or row.rule != "relu":
            raise MethodError(
                f"the maps of '{method}' have no graph to the parameters (differentiable=True); "
                "choose a method that computes with the plain gradient, such as gradcam, hirescam, "
                "layercam or gradient"
            )


def _targets(
    model: TensorModel,
    target: ClassNumbers | Target | Callable[[Any], Tensor] | None,
    rows: int,
    output: Any,
) -> Targets:
    """The one target of each row.

    Raises:
        LabelError: class numbers that are out of range, or not one for each row.
        ModelError: class numbers, and an output without logits `[batch, classes]`.
    """
    if isinstance(target, Target):
        return [[target]] * rows
    if callable(target):
        return [[Target(label="score", score=target)]] * rows
    logits = model.logits(output)
    count = logits.shape[1]
    given = logits.detach().argmax(1) if target is None else target
    numbers: Any = given.tolist() if isinstance(given, (Tensor, np.ndarray, np.generic)) else given
    numbers = list(numbers) if isinstance(numbers, Sequence) else [numbers] * rows
    if len(numbers) != rows:
        raise LabelError(
            f"{len(numbers)} targets for {rows} rows; give one class number for each row, or one "
            "for all"
        )
    try:
        numbers = [operator.index(number) for number in numbers]
    except TypeError as error:
        raise LabelError(f"target {target!r} is no class number ({error})") from error
    for number in numbers:
        if not 0 <= number < count:
            raise LabelError(
                f"target {number} is not a class of {model.name}, whose output has {count}; give "
                f"whole numbers from 0 to {count - 1}"
            )
    targets = {number: model.class_target(number) for number in set(numbers)}
    return [[targets[number]] for number in numbers]


def _first_score(targets_of: Callable[[Any], Targets], output: Any) -> Tensor:
    """The score of the first row's target, summed over the batch."""
    return targets_of(output)[0][0].score(output).sum()
