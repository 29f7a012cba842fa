"""`explain`, the main function of the library."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, overload

import numpy as np

from mmcam.engine.clips import Progress, explain_clip
from mmcam.engine.pictures import explain_samples, tasks_of
from mmcam.errors import InputError, LabelError, LayerError, MethodError, ModelError
from mmcam.explanations import Explanations
from mmcam.media import Clip, open_clip, read_image
from mmcam.methods.plan import Plan
from mmcam.tasks import Actions, Answers, Caption, Classes
from mmcam.types import Adapter, Sample, Target

Source = Any
"""A path, a PIL image, an array, an open clip, or a `Sample`."""


@overload
def explain(
    model: Adapter,
    source: list[Source],
    task: Any,
    *,
    method: str | Sequence[str] = ...,
    layers: str | Sequence[str] | None = ...,
    guided: bool = ...,
    counterfactual: bool = ...,
    batch: int | None = ...,
    progress: Progress | None = ...,
) -> list[Explanations]: ...


@overload
def explain(
    model: Adapter,
    source: Source,
    task: Any,
    *,
    method: str | Sequence[str] = ...,
    layers: str | Sequence[str] | None = ...,
    guided: bool = ...,
    counterfactual: bool = ...,
    batch: int | None = ...,
    progress: Progress | None = ...,
) -> Explanations: ...


def explain(
    model: Adapter,
    source: Source | list[Source],
    task: Any,
    *,
    method: str | Sequence[str] = "gradcam",
    layers: str | Sequence[str] | None = None,
    guided: bool = False,
    counterfactual: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Explanations | list[Explanations]:
    """Explain what a model generates or predicts for a picture or clip.

    Args:
        model: the result of `mmcam.load` or `mmcam.wrap`.
        source: a path, a PIL image or an array `[h, w, 3]`; for a video model a path (a file, a
            GIF, a folder of frames), an open clip or an array `[t, h, w, 3]`; or a `Sample`. A list
            of sources gives a list; pictures are explained in batches.
        task: `Caption(...)`, `Answers(...)`, `Classes(...)`, `Actions(...)`, or your own targets
            (one `Target`, or a list of them, which is one task). A list of tasks has one task for
            each source.
        method: one or more names of `mmcam.METHODS`.
        layers: names or patterns (`layer*`, `features.*`); the model's default when None.
        guided: also give the product of each map with guided backpropagation (Guided Grad-CAM).
        counterfactual: show the evidence against each target instead (Grad-CAM, IJCV 2020,
            eq. 12).
        batch: how many pictures, or windows of a clip, run at once; the adapter's default when None
            (8 pictures; 1 window; 1 picture if the input size varies from picture to picture).
        progress: called with (windows done, all windows) for a clip.

    Returns:
        The explanations of the source; a list of them, in order, if `source` is a list.

    Raises:
        MmcamError: an invalid argument or input, or a model that fails or does not fit the task,
            the layer or the method; the message gives the value, the reason and the remedy.

    Example:
        >>> model = mmcam.load("torchvision:resnet50")
        >>> maps = mmcam.explain(model, "photo.jpg", mmcam.Classes(["tabby"]))
        >>> maps["tabby"].heatmap().shape
        (480, 640)
    """
    methods = [method] if isinstance(method, str) else list(method)
    layers = [layers] if isinstance(layers, str) else layers
    batch = model.batch if batch is None else batch
    _check(model, task, methods, layers, batch)
    plan = Plan.of(methods, guided)
    sources = source if isinstance(source, list) else [source]
    tasks = tasks_of(task, len(sources))
    explained = []
    if model.window is not None:
        for clip_source, clip_task in zip(sources, tasks, strict=True):
            with _open(clip_source) as clip:
                explanations = explain_clip(
                    model,
                    clip,
                    clip_task,
                    plan,
                    layers,
                    counterfactual=counterfactual,
                    batch=batch,
                    progress=progress,
                )
                explained.append(Explanations.of_clip(model, clip, clip_task, explanations))
        return explained if isinstance(source, list) else explained[0]
    for start in range(0, len(sources), batch):
        samples = [_read(model, picture) for picture in sources[start : start + batch]]
        batch_tasks = tasks[start : start + batch]
        results = explain_samples(
            model, samples, batch_tasks, plan, layers, counterfactual=counterfactual
        )
        explained += [
            Explanations.of_picture(model, sample, sample_task, result.explanations, result.text)
            for sample, sample_task, result in zip(samples, batch_tasks, results, strict=True)
        ]
    return explained if isinstance(source, list) else explained[0]


def _check(
    model: Adapter,
    task: Any,
    methods: Sequence[str],
    layers: Sequence[str] | None,
    batch: int,
) -> None:
    """Check that the request is not empty and fits the model.

    Raises:
        MmcamError: no task, method or layer, a list with an item that is not a task, a batch size
            below 1, or `Actions` for an image model.
    """
    tasks = task if isinstance(task, list) else [task]
    if any(isinstance(item, Actions) for item in tasks) and model.window is None:
        raise ModelError(
            f"{model.name} is an image model and actions need a clip; choose a video model "
            "(mmcam list models), or ask for Classes (mmcam classify)"
        )
    known = (Actions, Answers, Caption, Classes, Target)
    if isinstance(task, Sequence) and not (task and all(isinstance(item, known) for item in task)):
        raise LabelError(
            f"{task!r} is not a task; give Caption(...), Answers(...), Classes([...]), "
            "Actions([...]), or one or more Targets"
        )
    if not methods:
        raise MethodError("the list of methods is empty; name one or more (mmcam list methods)")
    if layers is not None and not layers:
        raise LayerError(
            "the list of layers is empty; name one or more, or give None for the model's default"
        )
    if batch < 1:
        raise InputError(f"batch={batch}: it must be 1 or more")


def _open(source: Source) -> AbstractContextManager[Clip]:
    """Open a clip for a video model; it is closed on exit unless `source` is an open clip.

    Raises:
        InputError: a PIL image, an array of another shape or dtype, or a source that cannot be
            read.
    """
    if isinstance(source, Clip):
        return nullcontext(source)
    if not isinstance(source, Sample):
        return open_clip(source)
    clip = open_clip(source.pixels)
    clip.path = source.id
    return clip


def _read(model: Adapter, source: Source) -> Sample:
    """Read a picture for an image model.

    Raises:
        InputError: a clip, or a source that cannot be read.
    """
    is_clip = isinstance(source, Clip) or (isinstance(source, np.ndarray) and source.ndim == 4)
    if is_clip or (isinstance(source, (str, Path)) and Path(source).is_dir()):
        name = "array" if isinstance(source, np.ndarray) else getattr(source, "path", source)
        raise InputError(
            f"'{name}' is a clip and {model.name} is an image model; choose a video model "
            "(mmcam list models)"
        )
    return source if isinstance(source, Sample) else read_image(source)
