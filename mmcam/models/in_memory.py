"""Adapters of models in memory that a library built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mmcam.adapters.base.recipe import Recipe
from mmcam.capture.layers import Layer
from mmcam.models.labels import Labels, read_labels
from mmcam.models.registry import add_layouts
from mmcam.models.wrap import layer_names
from mmcam.types import Adapter


def from_transformers(
    model: Any,
    processor: Any,
    *,
    labels: str | Path | Labels | None = None,
    layers: Layer | Sequence[Layer] | None = None,
    name: str | None = None,
) -> Adapter:
    """A model of transformers in memory, such as one that you fine-tune, ready to be explained.

    The adapter is that of `mmcam.load("hf:...")`. The weights, device, dtype, mode and attention
    implementation of the model stay as they are. A generative model keeps the hooks with which
    transformers collects hidden states, which transformers installs itself when it needs them.

    Args:
        model: an image or video classifier, a captioner, a VQA model or an instruction-tuned model
            of transformers, of any type that `mmcam list models` shows for the family hf. If the
            model is wrapped, give the inner one: `model.module`, or PEFT's `get_base_model()`.
        processor: the model's processor: a combined one, or a pair (image processor, tokenizer), or
            for a classifier its image or video processor alone.
        labels: class names in the order of the classes: a list, a mapping from the number of each
            class to its name (such as `id2label`), or a file with one name per line; those of the
            model's configuration by default.
        layers: the layers to explain by default, as names or modules.
        name: the model's name in results; its class by default.

    Raises:
        ModelError: not a model of transformers, a type or class of model that mmcam does not
            explain, an incomplete processor or configuration, an unreadable file of labels, or
            labels of another kind.
        LayerError: a module in `layers` is not a part of `model`.

    Example:
        >>> model = mmcam.from_transformers(my_blip, my_processor)
        >>> maps = mmcam.explain(model, "photo.jpg", mmcam.Caption())
    """
    from mmcam.adapters.transformers import adapt

    name = name or type(model).__name__
    recipe = Recipe(
        family=name,
        name="",
        labels=() if labels is None else read_labels(labels),
        # `adapt` refuses what is no module.
        layers=layer_names(model, layers, name) if isinstance(model, nn.Module) else (),
    )
    adapter = adapt(recipe, model, processor)
    add_layouts(adapter)
    return adapter
