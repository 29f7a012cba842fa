"""Run a model; an exception of the model becomes a `ModelError`."""

from __future__ import annotations

from typing import Any

from mmcam.errors import model_errors
from mmcam.types import Adapter, Inputs


def run_model(adapter: Adapter, inputs: Inputs) -> Any:
    """The model's output for these inputs.

    Raises:
        ModelError: the model fails on the inputs; the cause is its own exception.
        MmcamError: raised by the adapter, the model or a hook; it is not changed.
    """
    with model_errors(adapter.name, inputs.pixels.shape):
        return adapter.forward(inputs)
