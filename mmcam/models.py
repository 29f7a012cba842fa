"""From a model's name, or a model folder, to its adapter. Families are imported on use."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmcam.adapters.base.answerer import Answerer, Question
from mmcam.adapters.base.classifier import Classifier, logits_of
from mmcam.adapters.base.preprocess import Preprocess, Transform
from mmcam.adapters.base.recipe import Recipe
from mmcam.capture.layers import resolve
from mmcam.capture.probe import SpatialLayer, default_layer, spatial_layers
from mmcam.errors import MmcamError, ModelError, nearest
from mmcam.grids import fold
from mmcam.tasks import Classes
from mmcam.types import Adapter, Sample


class Family(NamedTuple):
    """One row of the table of families: where its file is, and what it holds."""

    module: str
    example: str
    summary: str


FAMILIES: dict[str, Family] = {
    "torchvision": Family(
        "mmcam.adapters.torchvision",
        "torchvision:resnet50",
        "image and video classifiers of torchvision",
    ),
    "timm": Family("mmcam.adapters.timm", "timm:resnet50.a1_in1k", "image classifiers of timm"),
    "hf": Family(
        "mmcam.adapters.transformers",
        "hf:microsoft/resnet-50",
        "image and video classifiers, captioners and VQA models of transformers, hub or folder",
    ),
    "pytorchvideo": Family(
        "mmcam.adapters.pytorchvideo",
        "pytorchvideo:x3d_xs",
        "action classifiers of pytorchvideo",
    ),
    "c3d": Family("mmcam.adapters.c3d", "c3d", "C3D (Tran et al. 2015), weights by file"),
    "small": Family(
        "mmcam.adapters.small", "FOLDER", "the packaged models' small CNN, from a model folder"
    ),
    "show_and_tell": Family(
        "mmcam.adapters.show_and_tell", "FOLDER", "Show-and-Tell captioners, from a model folder"
    ),
    "show_attend_tell": Family(
        "mmcam.adapters.show_and_tell",
        "FOLDER",
        "Show, Attend and Tell captioners, from a model folder",
    ),
    "lstm_vqa": Family(
        "mmcam.adapters.vqa", "FOLDER", "LSTM and CNN for VQA (Lu et al. 2015), from a model folder"
    ),
    "co_attention": Family(
        "mmcam.adapters.vqa", "FOLDER", "hierarchical co-attention for VQA, from a model folder"
    ),
}

MANIFEST: dict[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "the name of a model of the family"),
    "args": (dict, "a mapping from names to values"),
    "weights": ((str, dict), "the name of a file, or a mapping from parts to names of files"),
    "cnn": (dict, "the recipe of a family of classifiers"),
    "vocabulary": (str, "the name of a file"),
    "special": (dict, "a mapping from pad, start, end and unknown to words"),
    "max_question_tokens": (int, "a number of words"),
    "labels": (str, "the name of a file"),
    "preprocess": (dict, "a mapping from names to values"),
    "layer": ((str, list), "the name of a layer, or a list of names"),
}
"""What a model folder's `mmcam.json` may say beside its family and schema version."""

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
        adapter = _from_factory(family, rest, name, overrides)
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


def reason_of(error: Exception) -> str:
    """The first line of what an error says; its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def folder_recipe(folder: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in a model folder's `mmcam.json`, its files checked.

    Raises:
        ModelError: no `mmcam.json`, one that cannot be read, a missing key or file, a schema
            version of the future, or a path that leaves the folder's surroundings.
    """
    path = folder / "mmcam.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"folder '{folder}' has no mmcam.json; give a folder that has one"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read ({error}); mend the file") from error
    if isinstance(values, dict) and values.get("schema_version") != 1:
        raise ModelError(
            f"'{path}' has schema_version {values.get('schema_version')!r}; this mmcam reads 1"
        )
    return replace(_recipe(folder, values), **(overrides or {}))


def _recipe(folder: Path, values: Any) -> Recipe:
    """The recipe that `values` of a model folder's `mmcam.json` describe, parts and all.

    Raises:
        ModelError: a missing or wrong key, or a file that is not there.
    """
    path = folder / "mmcam.json"
    if not isinstance(values, dict) or not isinstance(values.get("family"), str):
        raise ModelError(f"'{path}' names no family; add \"family\": one of {', '.join(FAMILIES)}")
    for key, (kind, wanted) in MANIFEST.items():
        if values.get(key) is not None and not isinstance(values[key], kind):
            raise ModelError(f"'{path}' has \"{key}\": {values[key]!r}; it must be {wanted}")
    weights = values.get("weights")
    files = weights if isinstance(weights, dict) else {"": weights}
    cnn = values.get("cnn")
    if cnn is not None and "cnn" in files:
        cnn = {**cnn, "weights": files["cnn"]}
    own = [name for part, name in files.items() if part != "cnn" and name]
    if len(own) > 1:
        raise ModelError(
            f"'{path}' names {len(own)} files of weights beside those of the cnn; put them in one"
        )
    layers = values.get("layer") or ()
    return Recipe(
        family=values["family"],
        name=str(values.get("name", "")),
        args=values.get("args") or {},
        weights=inside(folder, own[0]) if own else None,
        pretrained=False,
        labels=read_labels(inside(folder, values["labels"])) if values.get("labels") else (),
        preprocess=values.get("preprocess"),
        layers=(layers,) if isinstance(layers, str) else tuple(layers),
        vocabulary=inside(folder, values["vocabulary"]) if values.get("vocabulary") else None,
        special=values.get("special") or {},
        question_limit=values.get("max_question_tokens"),
        parts={} if cnn is None else {"cnn": _recipe(folder, cnn)},
    )


def inside(folder: Path, name: str) -> Path:
    """A file that a model folder names: inside it, or one level up beside it.

    Raises:
        ModelError: the path leads elsewhere, or there is no such file.
    """
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve().parent):
        raise ModelError(
            f"'{folder / 'mmcam.json'}' names '{name}', which is outside the folder; keep the file "
            "in the folder or beside it"
        )
    if not path.is_file():
        raise ModelError(f"'{folder / 'mmcam.json'}' names '{name}', and there is no such file")
    return path


def read_labels(labels: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Class names from a text file, one a line, or as they are given.

    Raises:
        ModelError: the file cannot be read.
    """
    if not isinstance(labels, (str, Path)):
        return tuple(labels)
    try:
        return tuple(Path(labels).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"labels file '{labels}' cannot be read ({error})") from error


def _from_factory(module: str, function: str, name: str, overrides: Mapping[str, Any]) -> Adapter:
    """The adapter that somebody's own function returns; the working folder is searched too."""
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    try:
        factory = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"model '{name}' cannot be found ({error}); give family:name (families: "
            f"{', '.join(FAMILIES)}) or package.module:factory"
        ) from error
    try:
        adapter = factory()
    except MmcamError:
        raise
    except Exception as error:
        raise ModelError(
            f"'{name}' failed ({type(error).__name__}: {reason_of(error)}); mend the factory"
        ) from error
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
    made: Adapter = adapter
    return made


def wrap(
    module: nn.Module,
    prepare: Callable[[Any], Tensor] | Preprocess | Transform | None = None,
    *,
    layer: str | Sequence[str] | None = None,
    labels: Sequence[str] = (),
    grid: Callable[[str, Tensor, Sequence[int]], Tensor] | None = None,
    logits: Callable[[Any], Tensor] = logits_of,
    pack: Callable[[Tensor], Any] | None = None,
    frames: int | None = None,
    stride: float = 1.0,
    fps: float | None = None,
    question: Callable[[str], Any] | None = None,
    name: str | None = None,
) -> Classifier:
    """Any module, ready to be explained.

    Args:
        module: a model of pictures or clips; it is left as it is.
        prepare: its transform of one PIL image into `[3, h, w]`, or a `Preprocess`; the usual
            ImageNet recipe (short side 256, centre crop 224) when None.
        layer: the layers explained by default; found by a probe when None.
        labels: class names.
        grid: folds a layer's output into `[batch, channel, *grid]`, given its name, the output and
            the input's size; by shape when None.
        logits: finds `[batch, classes]` in the module's output.
        pack: turns pixels `[batch, 3, *space]` into the module's argument.
        frames: for a model of clips, how many frames it sees at once.
        stride: their distance, in frames of a clip of rate `fps`.
        fps: the rate that `stride` counts in; that of each clip when None.
        question: for a model that answers questions, turns a question into the module's arguments
            behind the pixels: a tensor or a tuple of them, without a batch axis.
        name: what to call it in results.

    Example:
        >>> model = mmcam.wrap(my_network, prepare=my_transform, layer="trunk.7")
        >>> maps = mmcam.explain(model, "photo.jpg", mmcam.Classes(top=3))
    """
    if prepare is None:
        prepare = Preprocess(resize=256, crop=224, frames=frames, stride=stride, fps=fps)
    elif not isinstance(prepare, (Preprocess, Transform)):
        prepare = Transform(prepare, frames=frames, stride=stride, fps=fps)
    common: dict[str, Any] = {
        "name": name or type(module).__name__,
        "model": module,
        "preprocess": prepare,
        "labels": tuple(labels),
        "layers": () if layer is None else (layer,) if isinstance(layer, str) else tuple(layer),
        "unpack": logits,
        "pack": pack or (lambda pixels: pixels),
        "folds": grid or (lambda _, tensor, space: fold(tensor, space)),
    }
    if question is None:
        return Classifier(**common)
    return Answerer(**common, read=partial(_read, question))


def _read(question: Callable[[str], Any], text: str) -> Question:
    """A question as somebody's own function has it.

    Raises:
        ModelError: it gives no tensors.
    """
    made = question(text)
    arguments = made if isinstance(made, tuple) else (made,)
    if not all(isinstance(argument, Tensor) for argument in arguments):
        raise ModelError(
            f"the question '{text}' became a {type(made).__name__}; let it become a tensor or a "
            "tuple of tensors"
        )
    return Question(arguments)


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
