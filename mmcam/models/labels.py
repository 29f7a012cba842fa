"""The names of a model's classes or answers, from the forms in which users have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmcam.errors import ModelError

Labels = Iterable[Any] | Mapping[Any, Any]
"""Names (anything with a text) in the order of the classes, or by the number of the class."""


def read_labels(labels: str | Path | Labels) -> tuple[str, ...]:
    """Class names from a text file, one per line, or as for `label_names`.

    Raises:
        ModelError: the file cannot be read, or as `label_names`.
    """
    if not isinstance(labels, (str, Path)):
        return label_names(labels)
    try:
        return tuple(Path(labels).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"labels file '{labels}' cannot be read ({error}); check the path"
        ) from error


def label_names(labels: Labels) -> tuple[str, ...]:
    """Class names in the order of the classes, each as text.

    Raises:
        ModelError: a single text, or a mapping whose keys are not the numbers of the classes.
    """
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ModelError(
            f"the labels {labels!r:.100} are a {type(labels).__name__}; give a list of names, in "
            "the order of the logits"
        )
    names: Any = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(names, Mapping):
        numbered = {str(key): name for key, name in names.items()}
        numbers = [str(number) for number in range(len(names))]
        if numbered.keys() != set(numbers):
            raise ModelError(
                f"the labels are a mapping with the keys {list(names)!r:.100}; give a mapping from "
                f"the numbers 0 to {len(names) - 1} to names, as id2label, or a list of names"
            )
        names = [numbered[number] for number in numbers]
    return tuple(name if isinstance(name, str) else str(name) for name in names)
