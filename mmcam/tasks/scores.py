"""The scores of a class, an answer or a word that a map can explain."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmcam.errors import LabelError

LOGIT, LOG_PROB, MEAN_CONTRAST = "logit", "log-prob", "mean-contrast"
SCORES = (LOGIT, LOG_PROB, MEAN_CONTRAST)


def check_score(score: str) -> None:
    """Raise a LabelError if there is no score of this name."""
    if score not in SCORES:
        raise LabelError(f"score='{score}' is unknown; choose one of {', '.join(SCORES)}")


def mean_contrast(
    logits: Float[Tensor, "*batch"], mean: Float[Tensor, "*batch"], count: int | Tensor
) -> Float[Tensor, "*batch"]:
    """A logit minus the mean of the `count - 1` others, given the mean of all `count`.

    A softmax does not change when all logits grow alike. So what raises all of them is evidence for
    none of them; in a plain logit it counts, in this contrast it does not (Wang and Wang 2022,
    '"Why Not Other Classes?": Towards Class-Contrastive Back-Propagation Explanations', mean
    contrast).
    """
    return (logits - mean) * (count / (count - 1))


def mean_of_finite(
    logits: Float[Tensor, "*batch classes"],
) -> tuple[Float[Tensor, "*batch"], Int[Tensor, "*batch"]]:
    """The mean of the logits other than minus infinity, and their number.

    A logit of minus infinity means that a class or token is never chosen.
    """
    is_possible = logits != -torch.inf
    count = is_possible.sum(-1)
    return logits.where(is_possible, 0).sum(-1) / count, count


def contrast_of_column(
    logits: Float[Tensor, "batch classes"], index: int
) -> Float[Tensor, " batch"]:
    """The `mean_contrast` of one class.

    Raises:
        LabelError: there is a single class.
    """
    if logits.shape[1] < 2:
        raise LabelError(
            "score='mean-contrast' needs two classes or more and the model has one; choose logit"
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logits = logits.to(dtype)
    return mean_contrast(logits[:, index], *mean_of_finite(logits))
