"""The tasks of explaining classes in a picture and actions in a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from mmcam.errors import LabelError
from mmcam.tasks.labels import Label, as_labels
from mmcam.tasks.scores import LOGIT, check_score


@dataclass(frozen=True)
class Classes:
    """Explain classes in a picture: `labels`, or the model's `top` highest-scoring classes.

    A label is a class's name, regardless of case, its index, or its WordNet id if the model has
    ImageNet's classes. A single label may be given without a list; several may be a list, an array,
    a tensor or any other iterable, and become a tuple.

    `score` is what is explained of a class: its "logit" (Grad-CAM, IJCV 2020, section 3), its
    "log-prob", or its "mean-contrast", the logit minus the mean logit of all other classes. The
    gradient of a log-probability is that of the logit minus the mean of all logits, weighted by
    their probabilities; of a class that is certain, it is almost 0.

    Raises:
        LabelError: an empty list of labels, a label that is neither text nor a whole number, a
            `top` below 1, or an unknown `score`.
    """

    labels: Sequence[Label] | None = None
    top: int = 1
    score: str = LOGIT
    _wordnet_ids: tuple[str | None, ...] = field(init=False, repr=False)

    kind: ClassVar[str] = "class"
    name: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        if self.labels is not None:
            object.__setattr__(self, "labels", as_labels(self.labels, "labels"))
        if self.labels is not None and not self.labels:
            raise LabelError(
                "no labels to explain in []; name some, or omit them for the top classes"
            )
        # Samples with equal tasks share their targets, and a `WordNetLabel` equals any label of the
        # same name. So the ids are a field of their own, by which tasks differ.
        ids = tuple(getattr(label, "wordnet_id", None) for label in self.labels or ())
        object.__setattr__(self, "_wordnet_ids", ids)
        if self.top < 1:
            raise LabelError(f"top={self.top} asks for no label; it must be 1 or more")
        check_score(self.score)


@dataclass(frozen=True)
class Actions(Classes):
    """Explain actions in a clip: `labels`, or the model's `top` highest-scoring actions.

    The top actions of a clip of several windows are those with the highest mean probability over
    evenly spaced windows.
    """

    kind: ClassVar[str] = "action"
    name: ClassVar[str] = "actions"
