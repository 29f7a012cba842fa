"""Around a running model of transformers: what it writes on itself, and who sees what first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

RECORDER = "output_capturing_hook"
"""The name of the hooks with which transformers gathers hidden states and attention."""


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A model's output with every tensor in it changed; nothing is written into the old one."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        made: Any = type(value)
        return made(**{key: map_tensors(item, change) for key, item in value.items()})
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(item, change) for item in value)
    return value


def shallow_copy(output: Any) -> Any:
    """A copy of a model's output that can be written to; its tensors are the same."""
    return map_tensors(output, lambda tensor: tensor)


def every_nth_row(step: int, output: Any, rows: int) -> Any:
    """Each `step`-th row of an output that has so many rows."""
    if step == 1:
        return output
    return map_tensors(output, lambda tensor: tensor[::step] if len(tensor) == rows else tensor)


def concatenate(outputs: Sequence[Any]) -> Any:
    """Outputs of the same kind for several batches, as that of one batch."""
    first = outputs[0]
    if len(outputs) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(outputs))
    if isinstance(first, Mapping):
        made: Any = type(first)
        return made(**{key: concatenate([output[key] for output in outputs]) for key in first})
    if isinstance(first, (tuple, list)):
        return type(first)(concatenate(items) for items in zip(*outputs, strict=True))
    return first


@contextmanager
def record_outputs(module: nn.Module) -> Iterator[list[Any]]:
    """Inside, the outputs of a module are gathered in the list."""
    outputs: list[Any] = []
    hook = module.register_forward_hook(lambda *call: outputs.append(shallow_copy(call[-1])))
    try:
        yield outputs
    finally:
        hook.remove()


@contextmanager
def record_inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, what a module is given is gathered in the list."""
    inputs: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        yield inputs
    finally:
        hook.remove()


@contextmanager
def restore_attributes(model: nn.Module) -> Iterator[None]:
    """What the model's code writes on its modules inside is as before afterwards."""
    before = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            now = vars(module)
            if now.keys() != attributes.keys() or any(
                now[k] is not v for k, v in attributes.items()
            ):
                now.clear()
                now.update(attributes)
            if any(module._buffers.get(k) is not v for k, v in buffers.items()):
                module._buffers.update(buffers)


def install_capture_hooks(model: nn.Module) -> None:
    """Have transformers put its own hooks on the model now, not when a run needs them."""
    try:
        from transformers.utils.output_capturing import maybe_install_capturing_hooks
    except ImportError:  # releases that have none
        return
    maybe_install_capturing_hooks(model)


@contextmanager
def capture_hooks_last(model: nn.Module) -> Iterator[None]:
    """Inside, transformers gathers what other hooks have made of an output.

    A layer that hands on a new leaf must not be passed by through the hidden states.
    """
    orders = []
    for module in model.modules():
        hooks = module._forward_hooks
        names = [getattr(hook, "__name__", "") for hook in hooks.values()]
        if RECORDER in names and len(names) > 1:
            orders.append((hooks, list(hooks)))
            for key, name in zip(list(hooks), names, strict=True):
                if name == RECORDER:
                    hooks[key] = hooks.pop(key)
    try:
        yield
    finally:
        for hooks, order in orders:
            for key in order:
                if key in hooks:
                    hooks[key] = hooks.pop(key)


@contextmanager
def add_batch_axis(tower: nn.Module) -> Iterator[None]:
    """Inside, other hooks see tokens `[1, token, channel]` where a module gives `[token, channel]`.

    Of an output with several parts it is the one that the text is given (`pooler_output`).
    """
    raised: set[nn.Module] = set()

    def up(module: nn.Module, args: Any, output: Any) -> Any:
        changed = _pooled(output, lambda tensor: tensor[None], 2)
        if changed is not None:
            raised.add(module)
        return changed

    def down(module: nn.Module, args: Any, output: Any) -> Any:
        if module not in raised:
            return None
        raised.remove(module)
        return _pooled(output, lambda tensor: tensor.flatten(0, 1), 3)

    hooks = []
    for module in tower.modules():
        if module._forward_hooks:
            hooks.append(module.register_forward_hook(up, prepend=True))
            hooks.append(module.register_forward_hook(down))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _pooled(output: Any, change: Callable[[Tensor], Tensor], axes: int) -> Any:
    """An output whose tokens, if they have so many axes, are changed; None: it stays."""
    if isinstance(output, Tensor):
        return change(output) if output.ndim == axes and output.is_floating_point() else None
    pooled = getattr(output, "pooler_output", None)
    if isinstance(pooled, Tensor) and pooled.ndim == axes:
        made: Any = type(output)
        return made(**{**output, "pooler_output": change(pooled)})
    return None


class ConstantModule(nn.Module):
    """Gives what it was given."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.output


@contextmanager
def substitute_module(model: nn.Module, name: str, output: Any) -> Iterator[None]:
    """Inside, `output` is all that a module gives; neither it nor its hooks run."""
    parent, _, own = name.rpartition(".")
    modules = model.get_submodule(parent)._modules
    module = modules[own]
    modules[own] = ConstantModule(output)
    try:
        yield
    finally:
        modules[own] = module


class UnusedOutput:
    """Stands for what a tower gives to an encoder that does not look at it."""

    pooler_output: Any = None

    @property
    def hidden_states(self) -> UnusedOutput:
        """Whatever layer is asked for."""
        return self

    def __getitem__(self, place: Any) -> Tensor:
        return torch.empty(1, 1)
