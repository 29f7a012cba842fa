"""The outputs of a model's parts: recorded, copied, indexed by row, and replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of a model's output with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        output_class: Any = type(value)
        return output_class(**{key: map_tensors(item, change) for key, item in value.items()})
    if isinstance(value, (tuple, list)):
        items = [map_tensors(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def shallow_copy(output: Any) -> Any:
    """A copy of a model's output that can be written to; it shares the tensors."""
    return map_tensors(output, lambda tensor: tensor)


@contextmanager
def record_outputs(module: nn.Module) -> Iterator[list[Any]]:
    """Inside, the output of each call of a module is appended to the yielded list."""
    outputs: list[Any] = []
    hook = module.register_forward_hook(lambda *call: outputs.append(shallow_copy(call[-1])))
    try:
        yield outputs
    finally:
        hook.remove()


@contextmanager
def replace_output(module: nn.Module, output: Any) -> Iterator[None]:
    """Make `module` return `output` without running; its hooks still run.

    If `output` is None, `module` runs as usual.
    """
    if output is None:
        yield
        return
    original = module.__dict__.get("forward")
    module.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del module.forward
        if original is not None:
            module.forward = original
