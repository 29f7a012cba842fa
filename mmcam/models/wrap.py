"""Wrap a user's module as a model that can be explained."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from mmcam.adapters.base.answerer import AnswerClassifier, EncodedQuestion
from mmcam.adapters.base.classifier import Classifier, Probability, logits_of, reject_layer
from mmcam.adapters.base.preprocess import NoTransform, Preprocess, Transform
from mmcam.capture.layers import Layer, layer_patterns
from mmcam.capture.proof import GivenGrids, ProvenLayouts
from mmcam.errors import (
    InputError,
    LabelError,
    MmcamError,
    ModelError,
    WeightsError,
    raised_as,
    reason_of,
)
from mmcam.models.families import FAMILIES
from mmcam.models.labels import Labels, label_names
from mmcam.tasks.words import Word
from mmcam.types import Adapter


def from_factory(module: str, function: str, name: str, overrides: Mapping[str, Any]) -> Adapter:
    """The adapter that a user's function returns; its module may be in the working folder.

    Args:
        module: the dotted name of the function's module.
        function: the function's name.
        name: the model as the user gave it, for errors.
        overrides: the weights file, labels and default layers that replace the adapter's own.

    Raises:
        ModelError: there is no such function, or it fails or returns no adapter.
        WeightsError: the weights do not fit, or an untrained model is asked for.
        MmcamError: raised by the function; it is not changed.
    """
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    try:
        factory = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"model '{name}' cannot be found ({error}); give family:name (families: "
            f"{', '.join(FAMILIES)}) or package.module:factory"
        ) from error
    if overrides.get("pretrained") is False:
        raise WeightsError(
            f"weights='random' cannot be used with '{name}', because the factory chooses its own "
            "weights; leave weights out, and let the factory return an untrained model"
        )

    def convert(error: Exception) -> ModelError:
        return ModelError(
            f"'{name}' failed ({type(error).__name__}: {reason_of(error)}); fix the factory"
        )

    with raised_as(convert):
        adapter = factory()
    if isinstance(adapter, nn.Module) or not hasattr(adapter, "prepare"):
        raise ModelError(
            f"'{name}' returns a {type(adapter).__name__}; let it return mmcam.wrap(module, "
            "prepare=transform, layer=...)"
        )
    if overrides.get("weights"):
        from mmcam.adapters.base.weights import load_weights

        adapter.weights = load_weights(adapter.model, overrides["weights"])
    for key in ("labels", "layers"):
        if key in overrides:
            setattr(adapter, key, overrides[key])
    result: Adapter = adapter
    return result


def wrap(
    module: nn.Module,
    prepare: Callable[[Any], Tensor] | Preprocess | Transform | None = None,
    *,
    layer: Layer | Sequence[Layer] | None = None,
    labels: Labels = (),
    grid: Callable[[str, Tensor, Sequence[int]], Tensor] | None = None,
    logits: Callable[[Any], Tensor] = logits_of,
    pack: Callable[[Tensor], Any] | None = None,
    frames: int | None = None,
    stride: float = 1.0,
    fps: float | None = None,
    question: Callable[[str], Any] | None = None,
    probability: Probability = "softmax",
    show: int | Sequence[int] | None = None,
    name: str | None = None,
) -> Classifier:
    """Wrap any module, ready to be explained.

    Args:
        module: a model of pictures or clips; it is not changed.
        prepare: the module's transform of one picture into `[channel, h, w]`, or a `Preprocess`.
            The transform gets files, RGB images and uint8 arrays `[h, w, 3]` as RGB images; grey
            (of 8, 16 or 32 bits) and RGBA images, and arrays `[h, w]` or `[h, w, channel]` of any
            dtype as you gave them. When None, tensors are the module's input as they are; so are
            grey and RGBA images and arrays of other than three channels (channels first, uint8
            divided by 255, other values unchanged); and files, RGB images, arrays `[h, w, 3]` and
            clips have the usual ImageNet preprocessing (short side 256, centre crop 224).

            If the module's first convolution takes three channels, images of any mode, and arrays
            `[h, w]`, `[h, w, 3]` or `[h, w, 4]` of uint8 or of floats in [0, 1], are read as RGB
            like files: grey is repeated, transparency is drawn over white.
        layer: the layers to explain by default, as names or modules; found by a probe when None.
        labels: class names in the order of the logits: a list, or a mapping from the number of each
            class to its name.
        grid: a function of a layer's name, its output and the input's size (height, width; for a
            clip, frames first) that returns the output as `[batch, channel, *grid]`; when None,
            each layer's grid is found by tracing the module. A warning tells where the function
            and the traced grid differ.
        logits: extracts `[batch, classes]` from the module's output.
        pack: turns pixels `[batch, channel, *space]` into the module's argument.
        frames: for a model of clips, the number of frames in its input.
        stride: the distance between these frames, in frames of a clip of rate `fps`.
        fps: the rate that `stride` refers to; each clip's own rate when None.
        question: for a model that answers questions, turns a question into the module's arguments
            after the pixels, as `encode_question` of `wrap_vqa`, which takes more.
        probability: "softmax" for mutually exclusive classes (the sigmoid of a single logit),
            "sigmoid" for independent classes, a function from logits to
            probabilities, or None for scores without probabilities, such as regressions.
        show: how inputs other than RGB are drawn: the numbers of three channels, as red, green and
            blue, or of one, as grey. When None, three channels are colours, and any other number is
            drawn as the mean, in grey. Values other than uint8 are scaled from their own range, for
            drawing only.
        name: the model's name in results.

    Raises:
        ModelError: `module` is no module, `prepare` cannot be called, or labels of another kind.
        InputError: `show` is not one or three channel numbers, or `prepare` is a `Preprocess`,
            which takes RGB alone.
        LayerError: a module in `layer` is not a part of `module`.

    Example:
        >>> model = mmcam.wrap(my_network, prepare=my_transform, layer="trunk.7")
        >>> maps = mmcam.explain(model, "photo.jpg", mmcam.Classes(top=3))
    """
    name = name_of(module, name)
    common: dict[str, Any] = {
        "name": name,
        "model": module,
        "preprocess": preprocessing(prepare, frames, stride, fps, show),
        "labels": label_names(labels),
        "layers": layer_names(module, layer, name),
        "unpack": logits,
        "pack": pack or (lambda pixels: pixels),
        "probability": probability,
        **grid_options(grid),
    }
    if question is None:
        return Classifier(**common)
    return AnswerClassifier(**common, encode_question=partial(encode_question, question))


def name_of(module: Any, name: str | None) -> str:
    """The name in results of a module to be wrapped: its class if none is given.

    Raises:
        ModelError: not a module.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"a {type(module).__name__} is not a torch.nn.Module, so it has no layers to explain; "
            "give the module, or one whose forward calls your function"
        )
    return name or type(module).__name__


def preprocessing(
    prepare: Callable[[Any], Tensor] | Preprocess | Transform | None,
    frames: int | None = None,
    stride: float = 1.0,
    fps: float | None = None,
    show: int | Sequence[int] | None = None,
) -> Preprocess | Transform:
    """The preprocessing that the arguments of `wrap` describe.

    Raises:
        ModelError: `prepare` cannot be called.
        InputError: `show` is no channel numbers, or given together with a `Preprocess`.
    """
    channels = _channels(show)
    if prepare is None:
        return NoTransform(frames=frames, stride=stride, fps=fps, show=channels)
    if not isinstance(prepare, (Preprocess, Transform)):
        if not callable(prepare):
            raise ModelError(
                f"prepare={prepare!r:.100} cannot be called; give the model's transform of one "
                "picture, or a Preprocess, or leave it out for the usual ImageNet preprocessing"
            )
        return Transform(prepare, frames=frames, stride=stride, fps=fps, show=channels)
    if not channels:
        return prepare
    if isinstance(prepare, Preprocess) and not isinstance(prepare, NoTransform):
        raise InputError(
            f"show={show!r} is for inputs other than RGB, and a Preprocess takes RGB alone; give a "
            "function as `prepare`, or leave `show` out"
        )
    return replace(prepare, show=channels)


def layer_names(
    module: nn.Module, layer: Layer | Sequence[Layer] | None, name: str
) -> tuple[str, ...]:
    """The layers that the argument `layer` of `wrap` names.

    Raises:
        LayerError: a module that is no part of the wrapped one.
    """
    return () if layer is None else tuple(layer_patterns(module, layer, name))


def grid_options(
    grid: Callable[[str, Tensor, Sequence[int]], Tensor] | None,
) -> dict[str, Any]:
    """An adapter's `to_grid` and `layouts` for the argument `grid` of `wrap`."""
    layouts = ProvenLayouts() if grid is None else GivenGrids(function=grid)
    return {"to_grid": grid or reject_layer, "layouts": layouts}


def _channels(show: int | Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of the channels that are drawn; empty for the default.

    Raises:
        InputError: they are not one or three numbers from 0 on.
    """
    if show is None:
        return ()
    channels = (show,) if isinstance(show, int) else tuple(show)
    if len(channels) not in (1, 3) or not all(isinstance(c, int) and c >= 0 for c in channels):
        raise InputError(f"show={show!r}: give one or three channel numbers, counted from 0")
    return channels


def encode_question(
    encode: Callable[[str], Any],
    text: str,
    words: Callable[[str], Sequence[tuple[str, int, int]]] | None = None,
) -> EncodedQuestion:
    """A question, encoded as arguments of the module by the user's functions.

    Raises:
        LabelError: `encode` fails, as it does for a word that it does not know.
        ModelError: the functions do not return what they should.
    """

    def convert(error: Exception) -> MmcamError:
        return LabelError(
            f"the question {text!r} cannot be encoded ({type(error).__name__}: "
            f"{reason_of(error)}); use words that the model knows, or fix the function that "
            "encodes questions"
        )

    with raised_as(convert):
        result = encode(text)
    arguments = result if isinstance(result, tuple) else (result,)
    if not all(isinstance(argument, Tensor) for argument in arguments):
        raise ModelError(
            f"the question '{text}' became a {type(result).__name__}; let the function that "
            "encodes questions return a tensor or a tuple of tensors"
        )
    return EncodedQuestion(arguments, () if words is None else _question_words(words, text))


def _question_words(
    words: Callable[[str], Sequence[tuple[str, int, int]]], text: str
) -> tuple[Word, ...]:
    """The words of a question, and their positions in the embedding.

    Raises:
        ModelError: the function does not return (word, start, stop) for each word, in order.
    """
    result = list(words(text))
    try:
        found = tuple(Word(str(word), int(start), int(stop)) for word, start, stop in result)
    except (TypeError, ValueError):
        found = ()
    last = [0, *(word.stop for word in found)]
    if len(found) != len(result) or any(
        not stop <= word.start < word.stop for word, stop in zip(found, last, strict=False)
    ):
        raise ModelError(
            f"words gives {result!r:.200} for the question {text!r}; let it return (word, start, "
            "stop) for each word, in order, with its positions in the embedding"
        )
    return found
