"""Labels, answers and words as users give them, as plain Python values."""

from __future__ import annotations

import operator
from typing import Any

from mmcam.errors import LabelError

Label = str | int


def as_labels(values: Any, field: str) -> tuple[Label, ...]:
    """One label or several (a list, an array, a tensor or any other iterable), as a tuple.

    `field` is the field of the task, for the error.

    Raises:
        LabelError: a label is neither text nor a whole number.
    """
    plain = values.tolist() if hasattr(values, "tolist") else values
    try:
        labels = [plain] if isinstance(plain, str) else list(iter(plain))
    except TypeError:
        labels = [plain]
    return tuple(_as_label(label, field) for label in labels)


def _as_label(label: Any, field: str) -> Label:
    """A label, unchanged if it is text.

    Raises:
        LabelError: neither text nor a whole number.
    """
    if isinstance(label, str):
        return label
    try:
        return operator.index(label)
    except TypeError as error:
        raise LabelError(
            f"{field} contains {label!r:.100}, a {type(label).__name__}; give a name (str) or a "
            "whole number (int)"
        ) from error
