"""Context managers around a forward pass of transformers: recorded outputs, hooks, attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmcam.adapters.base.outputs import map_tensors

CAPTURE_HOOK = "output_capturing_hook"
"""The name of the hooks that collect hidden states and attention in transformers."""


def every_nth_row(step: int, output: Any, rows: int) -> Any:
    """Every `step`-th row of the tensors in an output that have `rows` rows."""
    if step == 1:
        return output
    return map_tensors(output, lambda tensor: tensor[::step] if len(tensor) == rows else tensor)


def concatenate(outputs: Sequence[Any]) -> Any:
    """The outputs for several batches as the output for one batch."""
    first = outputs[0]
    if len(outputs) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(outputs))
    if isinstance(first, Mapping):
        output_class: Any = type(first)
        return output_class(
            **{key: concatenate([output[key] for output in outputs]) for key in first}
        )
    if isinstance(first, (tuple, list)):
        items = [concatenate(parts) for parts in zip(*outputs, strict=True)]
        return type(first)(*items) if hasattr(first, "_fields") else type(first)(items)
    return first


@contextmanager
def record_inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the first argument of each call of a module is appended to the yielded list."""
    inputs: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        yield inputs
    finally:
        hook.remove()


@contextmanager
def restore_attributes(model: nn.Module) -> Iterator[None]:
    """On exit, restore the attributes and buffers of all modules that changed inside."""
    before = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            current = vars(module)
            if current.keys() != attributes.keys() or any(
                current[k] is not v for k, v in attributes.items()
            ):
                current.clear()
                current.update(attributes)
            if any(module._buffers.get(k) is not v for k, v in buffers.items()):
                module._buffers.update(buffers)


def install_capture_hooks(model: nn.Module) -> None:
    """Install the hooks of transformers on the model now, not during a forward pass."""
    try:
        from transformers.utils.output_capturing import maybe_install_capturing_hooks
    except ImportError:  # older releases of transformers
        return
    maybe_install_capturing_hooks(model)


@contextmanager
def eager_attention(module: nn.Module) -> Iterator[None]:
    """Inside, a module of transformers computes its attention weights, which fused kernels do not.

    On exit, the configurations have their own implementation of attention again.
    """
    configs: list[Any] = [getattr(part, "config", None) for part in module.modules()]
    before = [
        (config, config._attn_implementation)
        for config in {id(config): config for config in configs}.values()
        if getattr(config, "_attn_implementation", None) not in (None, "eager")
    ]
    set_implementation = getattr(module, "set_attn_implementation", None)
    if not before or set_implementation is None:
        yield
        return
    set_implementation("eager")
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


@contextmanager
def capture_hooks_last(model: nn.Module) -> Iterator[None]:
    """Inside, the hooks of transformers run last and collect outputs that other hooks changed.

    If a hook replaces a layer's output with a new leaf, the hidden states must contain that leaf.
    """
    orders = []
    for module in model.modules():
        hooks = module._forward_hooks
        names = [getattr(hook, "__name__", "") for hook in hooks.values()]
        if CAPTURE_HOOK in names and len(names) > 1:
            orders.append((hooks, list(hooks)))
            for key, name in zip(list(hooks), names, strict=True):
                if name == CAPTURE_HOOK:
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
    """Inside, other hooks get tokens `[1, token, channel]` if a module returns `[token, channel]`.

    In an output with several fields, this applies to `pooler_output`, the language model's input.
    """
    expanded: set[nn.Module] = set()

    def expand(module: nn.Module, args: Any, output: Any) -> Any:
        changed = _change_tokens(output, lambda tensor: tensor[None], 2)
        if changed is not None:
            expanded.add(module)
        return changed

    def flatten(module: nn.Module, args: Any, output: Any) -> Any:
        if module not in expanded:
            return None
        expanded.remove(module)
        return _change_tokens(output, lambda tensor: tensor.flatten(0, 1), 3)

    hooks = []
    for module in tower.modules():
        if module._forward_hooks:
            hooks.append(module.register_forward_hook(expand, prepend=True))
            hooks.append(module.register_forward_hook(flatten))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _change_tokens(output: Any, change: Callable[[Tensor], Tensor], axes: int) -> Any:
    """The output with its tokens changed, or None if they do not have `axes` axes."""
    if isinstance(output, Tensor):
        return change(output) if output.ndim == axes and output.is_floating_point() else None
    pooled = getattr(output, "pooler_output", None)
    if isinstance(pooled, Tensor) and pooled.ndim == axes:
        output_class: Any = type(output)
        return output_class(**{**output, "pooler_output": change(pooled)})
    return None


class ConstantModule(nn.Module):
    """Returns a fixed output for any input."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.output


@contextmanager
def substitute_module(model: nn.Module, name: str, output: Any) -> Iterator[None]:
    """Inside, a module returns `output`; neither its own forward pass nor its hooks run."""
    parent, _, child = name.rpartition(".")
    modules = model.get_submodule(parent)._modules
    module = modules[child]
    modules[child] = ConstantModule(output)
    try:
        yield
    finally:
        modules[child] = module


class UnusedOutput:
    """Placeholder for the output of a vision tower, for an encoder that does not use it."""

    pooler_output: Any = None

    @property
    def hidden_states(self) -> UnusedOutput:
        """The hidden states of any layer, which are not used either."""
        return self

    def __getitem__(self, index: Any) -> Tensor:
        return torch.empty(1, 1)
