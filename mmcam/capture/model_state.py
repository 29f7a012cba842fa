"""Leave the model as it was found, whatever happens during an explanation.

Parameters and their gradients are never written; modes, flags and random state are restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmcam.capture.plain_run import plain_run
from mmcam.capture.recurrent import use_native_kernels
from mmcam.errors import ModelError, reason_of


@contextmanager
def untouched(model: nn.Module, *, frozen: bool = True) -> Iterator[None]:
    """A context in which the model is in evaluation mode, its parameters frozen, gradients enabled.

    Without `frozen`, parameters that require gradients are part of the graph.

    On exit, the previous state and the random state are restored. In this context, a surrounding
    `no_grad` or `inference_mode` has no effect, nothing is checkpointed, compiled or fused (see
    `plain_run`), recurrent layers have gradients on every device (see `recurrent`), and a
    `DataParallel` uses its first device alone. Modes are set on each module
    directly, in case a module overrides `train`.

    Raises:
        ModelError: a part of the state cannot be restored; all other parts are restored.
    """
    # A frozen TorchScript module has no mode.
    modes = [(module, getattr(module, "training", False)) for module in model.modules()]
    # `model.parameters()` takes twenty times as long: it removes duplicates, module by module.
    parameters = [p for module, _ in modes for p in module._parameters.values() if p is not None]
    devices = sorted({p.device.index for p in parameters if p.is_cuda})
    restorations: list[Callable[[], Any]] = []
    with (
        torch.random.fork_rng(devices),
        torch.inference_mode(False),
        torch.enable_grad(),
        plain_run(),
    ):
        try:
            for module, mode in modes:
                restorations.append(partial(_set_mode, module, mode))
                _set_mode(module, False)
                if isinstance(module, nn.DataParallel):  # replicas would run in other threads
                    restorations.append(partial(setattr, module, "device_ids", module.device_ids))
                    module.device_ids = module.device_ids[:1]
                if isinstance(module, nn.RNNBase):
                    restorations.append(use_native_kernels(module))
            for parameter in parameters if frozen else ():
                if parameter.requires_grad and not parameter.is_inference():
                    restorations.append(partial(parameter.requires_grad_, True))
                    parameter.requires_grad_(False)
            _replace_inference_tensors(model, restorations)
            yield
        finally:
            _restore(type(model).__name__, restorations)


def _set_mode(module: nn.Module, mode: bool) -> None:
    if getattr(module, "training", False) != mode:
        module.training = mode


def _replace_inference_tensors(model: nn.Module, restorations: list[Callable[[], Any]]) -> None:
    """Replace parameters and buffers made under `inference_mode`, with which autograd cannot work.

    The replacements share the memory of the originals.
    """
    replacements: dict[int, Tensor] = {}  # several modules may share a tensor
    for module in model.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or not tensor.is_inference():
                continue
            if id(tensor) not in replacements:
                plain = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
                    tensor.untyped_storage(),
                    tensor.storage_offset(),
                    tensor.shape,
                    tensor.stride(),
                )
                is_parameter = isinstance(tensor, nn.Parameter)
                replacements[id(tensor)] = nn.Parameter(plain, False) if is_parameter else plain
            restorations.append(partial(setattr, module, name, tensor))
            # Recurrent layers keep a second list of their weights, which `setattr` updates.
            setattr(module, name, replacements[id(tensor)])


def _restore(name: str, restorations: Sequence[Callable[[], Any]]) -> None:
    """Run all restorations, the last one first, also if some of them fail.

    Raises:
        ModelError: some restorations failed.
    """
    failures = []
    for restoration in reversed(restorations):
        try:
            restoration()
        except Exception as error:
            failures.append(error)
    if failures:
        raise ModelError(
            f"{len(failures)} of {len(restorations)} parts of the state of {name} (modes, "
            f"requires_grad) cannot be restored ({reason_of(failures[0])}); its forward changes "
            "them: load the model anew"
        ) from failures[0]


def autocast(model: nn.Module, amp: bool) -> AbstractContextManager[Any]:
    """A context of mixed precision (bfloat16) if `amp`, otherwise a context without effect."""
    if not amp:
        return nullcontext()
    parameter = next(model.parameters(), torch.zeros(()))
    return torch.autocast(parameter.device.type, dtype=torch.bfloat16)
