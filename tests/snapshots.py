"""The state of a model that an explanation could change."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks_with_kwargs", "_state_dict_hooks", "_load_state_dict_pre_hooks"),
)


def copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def snapshot(net: nn.Module) -> dict[str, Any]:
    """The values that an explanation could change."""
    state: dict[str, Any] = {
        "random state": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "relu": F.relu,
    }
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        state[f"{name}: value"] = copied(tensor)
        state[f"{name}: place"] = tensor.data_ptr()
        state[f"{name}: gradient"] = copied(tensor.grad)
        state[f"{name}: requires_grad"] = tensor.requires_grad
        state[f"{name}: version"] = tensor._version
    for name, module in net.named_modules():
        state[f"{name}: training"] = module.training
        state[f"{name}: attributes"] = sorted(vars(module))
        for hooks in HOOKS:
            state[f"{name}: {hooks}"] = dict(getattr(module, hooks))
    return state


def assert_as_found(net: nn.Module, before: dict[str, Any]) -> None:
    after = snapshot(net)
    assert after.keys() == before.keys()
    for key, value in before.items():
        current = after[key]
        are_tensors = isinstance(value, Tensor) and isinstance(current, Tensor)
        same = torch.equal(current, value) if are_tensors else current is value or current == value
        assert same, f"{key}: {value} became {current}"
