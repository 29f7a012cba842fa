"""Configurations, checkpoints and processors of transformers, by hub name or folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mmcam.adapters.base.downloads import download_errors
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.base.weights import State
from mmcam.errors import (
    InputError,
    MissingExtra,
    ModelError,
    WeightsError,
    nearest,
    raised_as,
    reason_of,
)
from mmcam.types import Weights

PROCESSOR = "processor"
"""The key in a recipe's `args` that names the folder of a processor."""


class LoadedModel(NamedTuple):
    """A model of transformers, its processor, and the origin of its weights, if known.

    `processor` is a combined processor, a `ProcessorPair`, or the settings of an image processor as
    a mapping, if the model is a classifier.
    """

    model: nn.Module
    processor: Any
    weights: Weights | None = None


def read_config(recipe: Recipe, known: Sequence[str]) -> Any:
    """The configuration of a model; errors suggest the nearest of the `known` model types.

    Raises:
        ModelError: the configuration cannot be loaded.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    args = {key: value for key, value in recipe.args.items() if key != PROCESSOR}
    if not recipe.pretrained and recipe.name in CONFIG_MAPPING:
        return CONFIG_MAPPING[recipe.name](**args)
    try:
        return AutoConfig.from_pretrained(recipe.name, **recipe.hub_options, **args)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"transformers cannot load '{recipe.name}' ({reason}); give a hub name that can be "
            "reached, or a folder that holds the model. Known types: "
            f"{nearest(recipe.name.rpartition('/')[2], known, 5)}"
        ) from error


def convert_state_dict(model_class: Any, config: Any, state: State) -> State:
    """A checkpoint's weights under the names of the current code, as transformers converts them.

    A weight whose shape does not fit the model becomes an uninitialised tensor of the checkpoint's
    shape, so that `load_weights` reports it.
    """
    model, info = model_class.from_pretrained(
        None,
        config=config,
        state_dict=dict(state),
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    converted: State = {
        key: value for key, value in model.state_dict().items() if key not in info["missing_keys"]
    }
    converted |= {key: state[key] for key in info["unexpected_keys"] if key in state}
    return converted | {key: torch.empty(shape) for key, shape, _ in info["mismatched_keys"]}


def load_weights(recipe: Recipe, model: nn.Module, config: Any) -> Weights | None:
    """Load the recipe's weights file, if any, and return the origin of the model's weights.

    Raises:
        WeightsError: the file does not fit.
    """
    return recipe.load_weights(model, partial(convert_state_dict, type(model), config))


def build_model(recipe: Recipe, model_class: Any, config: Any) -> nn.Module:
    """A model of a class of transformers, with its pretrained weights if the recipe downloads them.

    Raises:
        WeightsError: weights are missing or cannot be downloaded.
    """
    if not recipe.downloads:
        untrained: nn.Module = model_class(config)
        return untrained
    model, info = load_pretrained(recipe, model_class, config)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise WeightsError(
            f"'{recipe.name}' holds no weights for {', '.join(missing[:3])}{more}, so it was not "
            "trained to generate captions or answers; choose a checkpoint that was"
        )
    trained: nn.Module = model
    return trained


def load_pretrained(recipe: Recipe, model_class: Any, config: Any) -> tuple[Any, Any]:
    """A model with the weights of its folder or from the hub, and transformers' loading info.

    Raises:
        WeightsError: there are no weights, or they cannot be downloaded.
    """
    is_folder = Path(recipe.name).is_dir()
    source = f"the folder '{recipe.name}'" if is_folder else f"the hub's '{recipe.name}'"
    with download_errors(recipe.title, source):
        loaded: tuple[Any, Any] = model_class.from_pretrained(
            recipe.name, config=config, output_loading_info=True, **recipe.hub_options
        )
    return loaded


class ProcessorPair:
    """An image processor and a tokenizer saved in one folder, without a combined processor."""

    chat_template: str | None = None

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer


def load_processor(recipe: Recipe, config: Any) -> Any:
    """The model's own processor.

    Raises:
        ModelError: there is no processor.
        MissingExtra: the processor needs a package that is not installed.
    """
    from transformers import CONFIG_MAPPING, AutoImageProcessor, AutoProcessor, AutoTokenizer

    folder = recipe.args.get(PROCESSOR) or recipe.name
    options = recipe.hub_options if folder == recipe.name else {}
    if PROCESSOR not in recipe.args and not recipe.pretrained and recipe.name in CONFIG_MAPPING:
        raise ModelError(
            f"{recipe.title} has no tokenizer, because it is an untrained model type; "
            f'name the folder of a processor ("args": {{"{PROCESSOR}": DIR}} in a '
            "model folder's mmcam.json), or give a hub name or folder that has one"
        )
    try:
        processor = AutoProcessor.from_pretrained(folder, **options)
        if hasattr(processor, "image_processor") and hasattr(processor, "tokenizer"):
            return processor
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise MissingExtra(f"the processor of '{folder}' needs a package: {reason}") from error
    except (OSError, ValueError):
        pass
    try:
        return ProcessorPair(
            AutoImageProcessor.from_pretrained(folder, **options),
            AutoTokenizer.from_pretrained(folder, **options),
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"'{folder}' comes without the processor of a {config.model_type} ({reason}); save it "
            "beside the model (processor.save_pretrained)"
        ) from error


@contextmanager
def processor_errors(name: str, height: int, width: int) -> Iterator[None]:
    """In this context, what an image processor raises for a picture becomes an `InputError`.

    Raises:
        InputError: the processor raised an exception, which is the cause.
        MmcamError: raised inside; it is not changed.
    """

    def convert(error: Exception) -> InputError:
        return InputError(
            f"the processor of {name} does not take a picture of {height} x {width} pixels (height "
            f"x width): {reason_of(error)}; crop or pad the picture"
        )

    with raised_as(convert):
        yield
