"""Which class, and which action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmcam.errors import LabelError

Label = str | int


@dataclass(frozen=True)
class Classes:
    """Explain classes of a picture: those named, or else the model's `top` first ones.

    A label is a class's name, in any case, or its index.

    Raises:
        LabelError: no labels and no top, or an empty list.
    """

    labels: Sequence[Label] | None = None
    top: int = 1

    kind: ClassVar[str] = "class"
    name: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        if isinstance(self.labels, (str, int)):
            object.__setattr__(self, "labels", (self.labels,))
        if self.labels is not None and not self.labels:
            raise LabelError("no labels to explain in []; name some, or leave them out for the top")
        if self.top < 1:
            raise LabelError(f"top={self.top} asks for no label; it must be 1 or more")


@dataclass(frozen=True)
class Actions(Classes):
    """Explain actions of a clip: those named, or else the `top` first ones over the whole clip."""

    kind: ClassVar[str] = "action"
    name: ClassVar[str] = "actions"
