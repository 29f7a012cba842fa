"""Load weights from a file into a model, safely and strictly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmcam.errors import WeightsError
from mmcam.types import Weights

WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model", "model_ema", "net")
PREFIXES = ("module.", "model.", "_orig_mod.")

State = dict[str, Tensor]


def read_state(path: str | Path) -> State:
    """The state dict in a safetensors file or a checkpoint that loads with `weights_only=True`.

    A checkpoint may nest its state dict under a key of `WRAPPERS`.

    Raises:
        WeightsError: the file is missing, broken or unsafe, or has no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file '{path}'; check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"'{path}' cannot be loaded ({reason[:200]}); give a .safetensors file, or a "
            "checkpoint that torch.load(weights_only=True) accepts"
        ) from error
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> State:
    while isinstance(content, Mapping):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return dict(content)
        inner = next((content[key] for key in WRAPPERS if key in content), None)
        if inner is None:
            break
        content = inner
    raise WeightsError(
        f"'{path}' holds no state dict (a mapping from names to tensors); save model.state_dict()"
    )


def load_weights(
    model: nn.Module, path: str | Path, rename: Callable[[State], State] | None = None
) -> Weights:
    """Load a file into `model`; keys and shapes must match exactly.

    `rename`, if given, is first applied to the state dict of the file. If no key matches, a prefix
    of `PREFIXES` that all keys share (as added by `DataParallel` or `torch.compile`) is removed.
    The counters of batch norm may be missing.

    Raises:
        WeightsError: keys are missing, unknown, or of another shape; or as `read_state`.
    """
    state = read_state(path)
    state = rename(state) if rename else state
    expected = model.state_dict()
    for prefix in PREFIXES:
        if not set(state) & set(expected) and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    missing = [key for key in expected if key not in state]
    unknown = [key for key in state if key not in expected]
    mismatched = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    # Old checkpoints lack the counters of batch norm, which are not needed for inference.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    problems = [
        f"{len(keys)} {problem} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for problem, keys in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", mismatched),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"'{path}' does not fit {type(model).__name__}: {'; '.join(problems)}. Give the "
            "weights of exactly this model, or name the model that they belong to"
        )
    model.load_state_dict(state, strict=False)
    return Weights(source=str(path), sha256=file_hash(path))


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
