"""The exceptions of mmcam, as one tree.

Every message names the value, the reason and the remedy, so that it can be shown unchanged::

    MmcamError
    ├── InputError      a picture, clip, array, data file or setting that cannot be used
    │   └── UnequalInputsError  samples whose inputs cannot be one batch
    ├── OutputError     results that cannot be written
    ├── ModelError      an unknown model, a broken model folder, an adapter that does not fit,
    │   │               a model that fails on an input
    │   └── WeightsError    weights that are missing, unsafe or do not fit the model
    ├── LayerError      an unknown layer, or one without a grid or with NaN values
    ├── MethodError     an unknown method, or one that does not work on this model
    ├── LabelError      a class, action, word or answer that the model or the results lack, or a
    │                   task that the model does not take
    ├── ScoreError      a score that cannot be computed or explained at this layer
    ├── EvaluationError an evaluation that is impossible: bad settings, no ground truth
    └── MissingExtra    an optional package that is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager


class MmcamError(Exception):
    """The base class of all exceptions that mmcam raises on purpose."""


class InputError(MmcamError):
    """A picture, clip, array, data file or setting cannot be used."""


class UnequalInputsError(InputError):
    """The inputs of several samples differ in shape, so they cannot be one batch.

    `kinds` has a value for each sample; samples with equal values can be one batch.
    """

    def __init__(self, message: str, kinds: Sequence[object]) -> None:
        super().__init__(message)
        self.kinds = kinds


class OutputError(MmcamError):
    """Results cannot be written."""


class ModelError(MmcamError):
    """A model is unknown, its folder is broken, or it does not fit the task or the input."""


class WeightsError(ModelError):
    """Weights are missing, unsafe to load, or do not fit the model."""


class LayerError(MmcamError):
    """A layer is unknown, has no grid to explain, or has NaN or infinite values."""


class MethodError(MmcamError):
    """A method is unknown or does not work on this model."""


class LabelError(MmcamError):
    """A label is not in the model or the results, or the model does not take the task.

    A label is a class, an action, a word or an answer.
    """


class ScoreError(MmcamError):
    """The score cannot be computed or explained at this layer."""


class EvaluationError(MmcamError):
    """An evaluation is impossible: bad settings, no ground truth, or nothing visible."""


class MissingExtra(MmcamError):  # noqa: N818 - the name states what is missing
    """An optional package is not installed."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Up to `count` known names similar to `name`, for an error message; "none" without any."""
    choices = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), choices, n=count, cutoff=0.3)
    return ", ".join(choices[match] for match in matches) or "none"


def reason_of(error: Exception) -> str:
    """The first line of an error's message, or the error's class if the message is empty.

    An error of TorchScript has its reason in the last line, after those that name the place. At
    most 200 characters are returned.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if "TorchScript interpreter" in lines[0] else 0][:200]


@contextmanager
def raised_as(convert: Callable[[Exception], MmcamError]) -> Iterator[None]:
    """In this context, what somebody else's code raises becomes the error that `convert` makes.

    Raises:
        MmcamError: the converted error, whose cause is the exception, or one raised inside, which
            is not changed.
    """
    try:
        yield
    except MmcamError:
        raise
    except Exception as error:
        raise convert(error) from error


@contextmanager
def model_errors(name: str, shape: Sequence[int]) -> Iterator[None]:
    """In this context, what a model raises on an input of this shape becomes a `ModelError`.

    Raises:
        ModelError: the model raised an exception, which is the cause.
        MmcamError: raised inside; it is not changed.
    """

    def convert(error: Exception) -> ModelError:
        is_plain = type(error) is RuntimeError  # torch's errors of shapes, dtypes and devices
        kind = "" if is_plain else f"{type(error).__name__}: "
        return ModelError(
            f"{name} failed on an input of shape {tuple(shape)} ({kind}{reason_of(error)}); "
            f"{_remedy(str(error), shape)}"
        )

    with raised_as(convert):
        yield


def _remedy(reason: str, shape: Sequence[int]) -> str:
    """What to do about an exception of a model on an input of this shape."""
    if "memory" in reason and ("out of" in reason or "allocate" in reason):
        return "use a smaller batch or another device"
    if "nference tensor" in reason or "InferenceMode" in reason:
        return "make the model's tensors outside torch.inference_mode()"
    channels = "give an input of as many channels as the model takes (three: image.convert('RGB'))"
    if "channels" in reason:
        return channels
    size = "resize the input to the model's size (preprocess), or fix the model's forward"
    is_grey_or_rgba = len(shape) == 4 and shape[1] in (1, 4)
    return f"{channels}, {size}" if is_grey_or_rgba else size
