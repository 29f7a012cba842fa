"""`explain`, the main function of the library, and `explain_each`, for many inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain, islice, repeat, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmcam.adapters.base.preprocess import takes_three_channels
from mmcam.capture.layers import Layer, layer_patterns
from mmcam.engine.clips import Progress, explain_clip
from mmcam.engine.pictures import explain_samples, is_target_list
from mmcam.errors import InputError, LabelError, LayerError, MethodError, ModelError
from mmcam.explanations import Explanations
from mmcam.media import Clip, open_clip, read_image
from mmcam.media.channels import read_as_given
from mmcam.methods.plan import Plan
from mmcam.models.bare import adapter_of, is_adapter
from mmcam.sources import each_source, is_single
from mmcam.tasks import Actions, Answers, Caption, Classes
from mmcam.types import Adapter, Sample, Target

Source = Any
"""A path, a PIL image, an array, a tensor, an open clip, or a `Sample`."""

TASKS = (Actions, Answers, Caption, Classes)

_NOTHING = object()


@overload
def explain(
    model: Adapter | nn.Module,
    source: list[Source] | tuple[Source, ...] | Iterator[Source] | Dataset[Any] | DataLoader[Any],
    task: Any = ...,
    *,
    method: str | Sequence[str] = ...,
    layers: Layer | Sequence[Layer] | None = ...,
    guided: bool = ...,
    counterfactual: bool = ...,
    batch: int | None = ...,
    progress: Progress | None = ...,
) -> list[Explanations]: ...


@overload
def explain(
    model: Adapter | nn.Module,
    source: Source,
    task: Any = ...,
    *,
    method: str | Sequence[str] = ...,
    layers: Layer | Sequence[Layer] | None = ...,
    guided: bool = ...,
    counterfactual: bool = ...,
    batch: int | None = ...,
    progress: Progress | None = ...,
) -> Explanations: ...


def explain(
    model: Adapter | nn.Module,
    source: Source | Iterable[Source],
    task: Any = None,
    *,
    method: str | Sequence[str] = "gradcam",
    layers: Layer | Sequence[Layer] | None = None,
    guided: bool = False,
    counterfactual: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Explanations | list[Explanations]:
    """Explain what a model generates or predicts for a picture or clip.

    Args:
        model: the result of `mmcam.load` or `mmcam.wrap`. A bare module is wrapped if its input can
            be known: for tensors, and for a model of timm (wrap it yourself to explain many inputs
            in several calls: what is found out about a model is kept with the wrapped one).
        source: a path, a PIL image or an array `[h, w, 3]`; for a video model a path (a file, a
            GIF, a folder of frames), an open clip or an array `[t, h, w, 3]`; or a `Sample`.

            For a module that was wrapped without a transform, or that is bare, also a tensor
            `[channel, h, w]`, which is the model's input as it is, cast to the dtype and moved to
            the device of the model's parameters. A model of clips that was wrapped (with `frames`)
            takes a clip `[channel, t, h, w]`; of a bare module, a tensor of four axes is a batch of
            pictures, and one of five axes a batch of clips `[batch, channel, t, h, w]`.
            For a module that was wrapped with your own transform, or without any, also images and
            arrays of any number of channels; see `mmcam.wrap`.

            Anything else that can be iterated is a batch and gives a list: a sequence, a generator,
            a dataset, a tensor with a batch axis, or a `DataLoader`, whose batches are unrolled. An
            item may be `(picture, label, ...)`, or a mapping with the picture under "pixel_values",
            "pixels", "image", "images", "img" or "video". A mapping with a sequence of pictures
            under one of these is a batch too. Pictures run in batches.
        task: `Caption(...)`, `Answers(...)`, `Classes(...)`, `Actions(...)`, or your own targets
            (one `Target`, or a list of them, which is one task). Another iterable has one task for
            each source. When None, the model's usual task: its top class or action, the caption
            that it generates, or its top answer to the text of the sample.
        method: one or more names of `mmcam.METHODS`.
        layers: names, patterns (`layer*`, `features.*`) or modules of the model; the model's
            default when None.
        guided: also give the product of each map with guided backpropagation (Guided Grad-CAM).
        counterfactual: show the evidence against each target instead (Grad-CAM, IJCV 2020,
            eq. 12).
        batch: how many pictures, or windows of a clip, run at once; the adapter's default when None
            (8 pictures; 1 window; 1 picture if the input size varies from picture to picture).
            Pictures whose inputs differ in size run in a batch for each size.
        progress: called with (windows done, all windows) for a clip.

    Returns:
        The `Explanations` of the source; a list of them, in order, for a batch.

    Raises:
        MmcamError: an invalid argument or input, or a model that fails or does not fit the task,
            the layer or the method; the message gives the value, the reason and the remedy.

    Example:
        >>> model = mmcam.load("torchvision:resnet50")
        >>> maps = mmcam.explain(model, "photo.jpg", mmcam.Classes(["tabby"]))
        >>> maps["tabby"].heatmap().shape
        (480, 640)
    """
    results = explain_each(
        model,
        source,
        task,
        method=method,
        layers=layers,
        guided=guided,
        counterfactual=counterfactual,
        batch=batch,
        progress=progress,
    )
    return next(results) if is_single(source, _axes(model)) else list(results)


def explain_each(
    model: Adapter | nn.Module,
    sources: Source | Iterable[Source],
    task: Any = None,
    *,
    method: str | Sequence[str] = "gradcam",
    layers: Layer | Sequence[Layer] | None = None,
    guided: bool = False,
    counterfactual: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Explanations]:
    """Explain many pictures or clips, yielding the result of each in order.

    The arguments are those of `explain`. Sources and tasks are read as they are needed, `batch` at
    a time, and no result is kept, so that memory does not grow with their number.

    Raises:
        MmcamError: as `explain`; errors of a source are raised when its batch is explained.

    Example:
        >>> for number, maps in enumerate(mmcam.explain_each(model, loader)):
        ...     maps.save(f"out/{number}")
    """
    items = each_source(sources, _axes(model))
    if is_adapter(model):
        adapter = adapter_of(model)
    else:
        first = next(items, _NOTHING)
        if first is _NOTHING:
            return iter(())
        adapter = adapter_of(model, first)
        items = chain([first], items)
        if isinstance(first, Tensor):
            items = map(_checked_tensor, items)
    methods = [method] if isinstance(method, str) else list(method)
    patterns = None if layers is None else layer_patterns(adapter.model, layers, adapter.name)
    batch = adapter.batch if batch is None else batch
    _check(methods, patterns, batch)
    request = _Request(Plan.of(methods, guided), patterns, counterfactual, batch, progress)
    pairs = _with_tasks(adapter, items, task)
    if is_single(sources, _axes(model)):
        pairs = iter(list(pairs))  # so that more tasks than the one source are refused at once
    return _explain_pairs(adapter, pairs, request)


class _Request(NamedTuple):
    """What to compute of each source; the fields are the arguments of `explain`."""

    plan: Plan
    layers: Sequence[str] | None
    counterfactual: bool
    batch: int
    progress: Progress | None


def _explain_pairs(
    model: Adapter, pairs: Iterator[tuple[Source, Any]], request: _Request
) -> Iterator[Explanations]:
    """The results of sources with their tasks, `request.batch` of them read at a time."""
    while chunk := list(islice(pairs, request.batch)):
        together = model.window is None or all(_is_input(source) for source, _ in chunk)
        for part in [chunk] if together else [[pair] for pair in chunk]:
            if together or _is_input(part[0][0]):
                yield from _explain_inputs(model, part, request)
            else:
                yield _explain_clip(model, *part[0], request)


def _explain_inputs(
    model: Adapter, pairs: Sequence[tuple[Source, Any]], request: _Request
) -> Iterator[Explanations]:
    """The results of pictures, or of tensors that are the model's input."""
    samples = [_read(model, source) for source, _ in pairs]
    tasks = [task for _, task in pairs]
    results = explain_samples(
        model, samples, tasks, request.plan, request.layers, counterfactual=request.counterfactual
    )
    for sample, task, result in zip(samples, tasks, results, strict=True):
        if model.window is None:
            yield Explanations.of_picture(model, sample, task, result.explanations, result.text)
        else:
            with _open(sample) as clip:
                yield Explanations.of_clip(model, clip, task, result.explanations)


def _explain_clip(model: Adapter, source: Source, task: Any, request: _Request) -> Explanations:
    """The result of a clip of any length."""
    with _open(source) as clip:
        explanations = explain_clip(
            model,
            clip,
            task,
            request.plan,
            request.layers,
            counterfactual=request.counterfactual,
            batch=request.batch,
            progress=request.progress,
        )
        return Explanations.of_clip(model, clip, task, explanations)


def _axes(model: Any) -> int:
    """The number of axes of a model's input without the batch: 3, or 4 for clips.

    A bare module is taken as a model of pictures: only a tensor `[batch, channel, time, height,
    width]` shows that it is one of clips, and its items are clips by their own axes.
    """
    return 3 if getattr(model, "window", None) is None else 4


def _is_input(source: Source) -> bool:
    """Whether a source is a model's input as it is, rather than a clip of any length."""
    return isinstance(source, Tensor) or (isinstance(source, Sample) and source.source is not None)


def _checked_tensor(source: Source) -> Tensor:
    """A later source of a bare module whose first source is a tensor.

    Raises:
        InputError: it is not a tensor.
    """
    if not isinstance(source, Tensor):
        raise InputError(
            f"the first source is a tensor and a later one a {type(source).__name__}; a bare "
            "module takes tensors alone, so wrap it (mmcam.wrap(module, prepare=transform))"
        )
    return source


def _with_tasks(
    model: Adapter, sources: Iterator[Source], task: Any
) -> Iterator[tuple[Source, Any]]:
    """Each source with its task, which is checked.

    Raises:
        LabelError: there is no task, an item is not a task, or (raised when it is reached) there
            are more or fewer tasks than sources.
        ModelError: `Actions` for an image model.
    """
    if task is None:
        task = model.default_task
    if isinstance(task, Target):
        task = [task]
    is_one = isinstance(task, TASKS) or is_target_list(task) or not hasattr(task, "__iter__")
    if is_one:
        _check_task(model, task)
        return zip(sources, repeat(task))
    if isinstance(task, (str, list, tuple)):  # these can be checked before any source is read
        if not task or isinstance(task, str):
            raise _not_a_task(task)
        for item in task:
            _check_task(model, item, task)
    return _with_own_tasks(model, sources, task)


def _with_own_tasks(
    model: Adapter, sources: Iterator[Source], tasks: Iterable[Any]
) -> Iterator[tuple[Source, Any]]:
    pairs = zip_longest(sources, tasks, fillvalue=_NOTHING)
    for number, (source, task) in enumerate(pairs):
        if source is _NOTHING or task is _NOTHING:
            count = len(tasks) if isinstance(tasks, (list, tuple)) else "more"
            given = f"{number} tasks" if task is _NOTHING else f"{count} tasks"
            many = f"{number} sources" if source is _NOTHING else f"more than {number} sources"
            raise LabelError(f"{given} for {many}; give one task for all, or one for each")
        _check_task(model, task)
        yield source, [task] if isinstance(task, Target) else task


def _check_task(model: Adapter, task: Any, tasks: Any = None) -> None:
    """Check that a task, one of `tasks` if given, is a task, and fits the model.

    Raises:
        LabelError: it is no task.
        ModelError: `Actions` for an image model.
    """
    if isinstance(task, Actions) and model.window is None:
        raise ModelError(
            f"{model.name} is an image model and actions need a clip; choose a video model "
            "(mmcam list models), or ask for Classes (mmcam classify)"
        )
    if not (isinstance(task, (*TASKS, Target)) or is_target_list(task)) and (
        tasks is not None or isinstance(task, Sequence)
    ):
        raise _not_a_task(task if tasks is None else tasks)


def _not_a_task(task: Any) -> LabelError:
    return LabelError(
        f"{task!r} is not a task; give Caption(...), Answers(...), Classes([...]), "
        "Actions([...]), or one or more Targets"
    )


def _check(methods: Sequence[str], layers: Sequence[str] | None, batch: int) -> None:
    """Check that methods and layers are not empty, and that the batch size is at least 1.

    Raises:
        MmcamError: one of them is.
    """
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
    """Read a picture for an image model, or a model's input as it is.

    Raises:
        InputError: a clip for an image model, a tensor for a model that prepares its input itself,
            or a source that cannot be read.
    """
    if isinstance(source, Sample) and source.source is not None:
        return source
    preprocess: Any = getattr(model, "preprocess", None)
    if preprocess is not None and preprocess.takes_as_given(source):
        if not isinstance(source, Tensor) and takes_three_channels(model.model):
            with suppress(InputError):  # other dtypes, ranges and numbers of channels: as given
                return read_image(source)
        return read_as_given(source, preprocess.show)
    if isinstance(source, Tensor):
        raise InputError(
            f"a tensor of shape {tuple(source.shape)} is a model's input, and {model.name} "
            "prepares its input itself; give the picture (a path, a PIL image or an array [h, w, "
            "3]), or explain the tensor with mmcam.cams(model.model, tensor, ...) or with "
            "mmcam.wrap(model.model), which has no transform"
        )
    is_clip = isinstance(source, Clip) or (isinstance(source, np.ndarray) and source.ndim == 4)
    if is_clip or (isinstance(source, (str, Path)) and Path(source).is_dir()):
        name = "array" if isinstance(source, np.ndarray) else getattr(source, "path", source)
        raise InputError(
            f"'{name}' is a clip and {model.name} is an image model; choose a video model "
            "(mmcam list models)"
        )
    return source if isinstance(source, Sample) else read_image(source)
