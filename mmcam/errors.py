"""The exceptions of mmcam, as one tree.

Every message names the value, the reason and the remedy, so that it can be shown unchanged::

    MmcamError
    ├── InputError      a picture, clip or array that cannot be read
    ├── OutputError     results that cannot be written
    ├── ModelError      an unknown model, a broken model folder, an adapter that does not fit
    │   └── WeightsError    weights that are missing, unsafe or do not fit the model
    ├── LayerError      an unknown layer, or one that has no grid to explain
    ├── MethodError     an unknown method, or one that this model cannot be explained with
    ├── LabelError      a class, action, word or answer that the model does not know
    ├── ScoreError      a score that cannot be explained at this layer
    ├── EvaluationError a map that a protocol cannot judge: nothing seen, no ground truth
    └── MissingExtra    an optional package that is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MmcamError(Exception):
    """The base class of all exceptions that mmcam raises on purpose."""


class InputError(MmcamError):
    """A picture, clip or array cannot be read."""


class OutputError(MmcamError):
    """Results cannot be written."""


class ModelError(MmcamError):
    """A model is unknown, its folder is broken, or it does not fit the task."""


class WeightsError(ModelError):
    """Weights are missing, unsafe to load, or do not fit the model."""


class LayerError(MmcamError):
    """A layer is unknown or has no grid to explain."""


class MethodError(MmcamError):
    """A method is unknown or cannot explain this model."""


class LabelError(MmcamError):
    """The model does not know a class, an action, a word or an answer."""


class ScoreError(MmcamError):
    """The score cannot be explained at this layer."""


class EvaluationError(MmcamError):
    """A protocol cannot judge a map: no ground truth, or nothing that the model saw."""


class MissingExtra(MmcamError):  # noqa: N818 - the name says what is missing
    """An optional package is not installed."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The `count` known names that are most similar to `name`, for an error message."""
    choices = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), choices, n=count, cutoff=0.3)
    return ", ".join(choices[match] for match in matches) or "none"


def reason_of(error: Exception) -> str:
    """The first line of an error's message, or the error's class if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
