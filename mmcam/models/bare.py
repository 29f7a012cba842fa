"""Wrap a bare module that was given to `explain`, if its preprocessing can be known."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmcam.capture.proof import kept
from mmcam.errors import ModelError
from mmcam.models.wrap import wrap
from mmcam.types import Adapter


def is_adapter(model: Any) -> bool:
    """Whether a model can be explained as it is."""
    return hasattr(model, "prepare") and hasattr(model, "targets")


def adapter_of(model: Any, first: Any = None) -> Adapter:
    """The model itself if it is an adapter, or a module wrapped as one.

    Args:
        model: the model that the user gave.
        first: the first source to explain. If it is a tensor, the module takes it as it is.

    Raises:
        ModelError: neither an adapter nor a module, a model of transformers without its processor,
            or a module whose preprocessing is unknown.
    """
    if is_adapter(model):
        adapter: Adapter = model
        return adapter
    if not isinstance(model, nn.Module):
        name = repr(model) if isinstance(model, str) else f"a {type(model).__name__}"
        example = f": mmcam.load({model!r})" if isinstance(model, str) else ""
        raise ModelError(
            f"{name} is not a model; give the result of mmcam.load or mmcam.wrap{example}"
        )
    kind = type(model).__name__
    if isinstance(first, Tensor):
        is_clip = first.ndim == 4  # [channel, time, height, width]: batches are unrolled before
        wrapped = wrap(model, frames=first.shape[1] if is_clip else None)
        wrapped.layouts = kept(model).layouts
        return wrapped
    if hasattr(model, "pretrained_cfg") and hasattr(model, "num_classes"):
        from mmcam.adapters.timm import from_module

        model_of_timm = from_module(model)
        model_of_timm.layouts = kept(model).layouts
        return model_of_timm
    # Compared by name, so that transformers is not imported for other models.
    if any(base.__name__ == "PreTrainedModel" for base in type(model).__mro__):
        raise ModelError(
            f"{kind} is a model of transformers, whose processor prepares its pictures; give "
            "mmcam.from_transformers(model, processor), or a tensor as the model takes it"
        )
    raise ModelError(
        f"{kind} is a bare module, and nothing says how its pictures are prepared; give "
        "mmcam.wrap(module, prepare=transform), or a tensor as the module takes it"
    )
