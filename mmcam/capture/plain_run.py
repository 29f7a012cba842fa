"""Run a model as plain Python: without gradient checkpointing, not compiled and not fused.

Checkpointing discards activations and runs a part of the model again in the backward pass. The
second run happens without the hooks of the first, and the reentrant variant does not support
`torch.autograd.grad`. A map needs only the graph from the explained layer to the score, so
checkpointing saves little here. `torch.compile` does not notice that hooks are added or removed:
the compiled model runs without them, or with those of an earlier run. TorchScript, from its second
run on, fuses operations into one node of the graph, which hides the ReLUs from guided
backpropagation.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.jit import _fuser
from torch.utils import checkpoint

_lock = threading.Lock()


class _Changes:
    """Changes that the first of several overlapping contexts makes, and the last one undoes."""

    def __init__(self) -> None:
        self.users, self.stack = 0, ExitStack()

    @contextmanager
    def use(self, make: Callable[[ExitStack], None]) -> Iterator[None]:
        """In this context, the changes are made; contexts may end in any order."""
        with _lock:
            if not self.users:
                make(self.stack)
            self.users += 1
        try:
            yield
        finally:
            with _lock:
                self.users -= 1
                if not self.users:
                    self.stack.close()


class _ThreadChanges(threading.local, _Changes):
    """The changes of one thread."""


_of_all_threads, _of_this_thread = _Changes(), _ThreadChanges()


class _DirectCall:
    """Replaces `CheckpointFunction`: the function runs as if it were not checkpointed."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_random_state: bool, *args: Any) -> Any:
        return function(*args)


CHECKPOINTING = {
    "CheckpointFunction": _DirectCall,
    "_checkpoint_hook": lambda frame: nullcontext(),
}
"""The parts of `torch.utils.checkpoint` that leave out activations, and their replacements."""


@contextmanager
def plain_run() -> Iterator[None]:
    """In this context, nothing is checkpointed or fused, and compiled models run eagerly.

    Checkpointing and compilation are off in all threads. Contexts may overlap.
    """
    with _of_all_threads.use(_run_directly), _of_this_thread.use(_run_unfused):
        yield


def _run_directly(stack: ExitStack) -> None:
    # Modules import the function `checkpoint` by name, so what it calls is replaced instead.
    for name, value in CHECKPOINTING.items():
        stack.callback(setattr, checkpoint, name, getattr(checkpoint, name))
        setattr(checkpoint, name, value)
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):  # from 2.6 on
        stack.enter_context(torch.compiler.set_stance("force_eager"))


def _run_unfused(stack: ExitStack) -> None:
    stack.enter_context(_fuser.optimized_execution(False))
