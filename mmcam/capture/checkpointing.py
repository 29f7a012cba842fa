"""Run a model without gradient checkpointing.

Checkpointing discards activations and runs a part of the model again in the backward pass. The
second run happens without the hooks of the first, and the reentrant variant does not support
`torch.autograd.grad`. A map needs only the graph above the explained layer, so checkpointing saves
little here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch.utils import checkpoint

_ORIGINALS = {
    name: getattr(checkpoint, name) for name in ("CheckpointFunction", "_checkpoint_hook")
}
"""What `torch.utils.checkpoint.checkpoint` calls, reentrant and not, to leave out activations."""

_lock = threading.Lock()
_users = 0


class _DirectCall:
    """Replaces `CheckpointFunction`: the function runs as if it were not checkpointed."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_random_state: bool, *args: Any) -> Any:
        return function(*args)


_REPLACEMENTS = {"CheckpointFunction": _DirectCall, "_checkpoint_hook": lambda frame: nullcontext()}


@contextmanager
def without_checkpointing() -> Iterator[None]:
    """In this context, `torch.utils.checkpoint` runs functions directly, also in other threads.

    Modules import `checkpoint` by name, so what it calls is replaced instead of the function.
    """
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    """Add to the number of contexts in use; the first one replaces, the last one restores."""
    global _users
    with _lock:
        _users += change
        for name, value in (_REPLACEMENTS if _users else _ORIGINALS).items():
            setattr(checkpoint, name, value)
