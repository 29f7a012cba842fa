"""Weights files: what loads, and the error of each file that does not."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmcam.adapters.base.weights import State, file_hash, load_weights, read_state
from mmcam.errors import WeightsError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, 4)


def state() -> State:
    """Weights that differ from a new network's."""
    torch.manual_seed(1)
    return {
        key: value if value.ndim == 0 else torch.randn(value.shape)
        for key, value in Net().state_dict().items()
    }


def loaded(path: Path) -> State:
    model = Net()
    load_weights(model, path)
    return model.state_dict()


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_safetensors_fill_the_model(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "net.safetensors")
    assert same(loaded(tmp_path / "net.safetensors"), state())


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda plain: plain,
        lambda plain: {"state_dict": plain, "epoch": 3},
        lambda plain: {"model_state": plain},
        lambda plain: {"model": {"state_dict": plain}},
        lambda plain: {f"module.{key}": value for key, value in plain.items()},
        lambda plain: {f"_orig_mod.{key}": value for key, value in plain.items()},
        lambda plain: {f"module.model.{key}": value for key, value in plain.items()},
        lambda plain: {"state_dict": {f"model.{key}": value for key, value in plain.items()}},
    ],
    ids=[
        "plain",
        "state_dict",
        "model_state",
        "nested",
        "module.",
        "_orig_mod.",
        "two",
        "lightning",
    ],
)
def test_checkpoints_fill_the_model_however_they_are_wrapped(
    wrapped: Callable[[State], Any], tmp_path: Path
) -> None:
    torch.save(wrapped(state()), tmp_path / "net.pth")
    assert same(loaded(tmp_path / "net.pth"), state())


def test_a_prefix_that_is_the_models_own_stays(tmp_path: Path) -> None:
    outer = nn.ModuleDict({"model": Net()})
    torch.save({f"model.{key}": value for key, value in state().items()}, tmp_path / "net.pth")
    load_weights(outer, tmp_path / "net.pth")
    assert same(outer["model"].state_dict(), state())


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    old = {key: value for key, value in state().items() if "num_batches" not in key}
    torch.save(old, tmp_path / "old.pth")
    assert same(loaded(tmp_path / "old.pth"), state())


def test_the_weights_come_with_their_source_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(state(), path)
    weights = load_weights(Net(), path)
    assert weights.source == str(path)
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_hash_of_a_file_of_many_blocks_is_right(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(range(256)) * 10_000)
    expected = hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()
    assert file_hash(tmp_path / "big") == expected


def test_names_are_changed_before_they_are_compared(tmp_path: Path) -> None:
    torch.save({f"old/{key}": value for key, value in state().items()}, tmp_path / "net.pth")
    model = Net()
    load_weights(
        model,
        tmp_path / "net.pth",
        lambda state: {key.removeprefix("old/"): value for key, value in state.items()},
    )
    assert same(model.state_dict(), state())


def without(*keys: str) -> State:
    return {key: value for key, value in state().items() if key not in keys}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (without("fc.bias"), r"1 missing \(fc.bias\)"),
        ({**state(), "fc2.bias": torch.zeros(4)}, r"1 unknown \(fc2.bias\)"),
        (
            {**state(), "fc.weight": torch.zeros(9, 2)},
            r"1 of another shape \(fc.weight \(9, 2\) instead of \(4, 2\)\)",
        ),
        (
            {**without("conv.weight"), "stem.weight": torch.zeros(1), "fc.bias": torch.zeros(5)},
            r"1 missing \(conv.weight\); 1 unknown \(stem.weight\); 1 of another shape \(fc.bias",
        ),
        (
            {f"other.{index}": torch.zeros(1) for index in range(5)},
            r"8 missing .*, \.\.\.\); 5 unknown \(other.0, other.1, other.2, \.\.\.\)",
        ),
    ],
    ids=["missing", "unknown", "shape", "all three", "another model"],
)
def test_weights_that_do_not_fit_are_refused_and_the_model_stays(
    content: State, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    save_file(content, path)
    model = Net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"net.safetensors' does not fit Net: {reason}"):
        load_weights(model, path)
    assert same(model.state_dict(), before)


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def broken(kind: str, folder: Path) -> Path:
    path = folder / ("net.safetensors" if "safetensors" in kind else "net.pth")
    if kind == "truncated safetensors":
        save_file(state(), path)
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "truncated checkpoint":
        torch.save(state(), path)
        path.write_bytes(path.read_bytes()[:-400])
    elif kind == "pickled code":
        torch.save({"state_dict": state(), "hook": Trap(folder / "sprung")}, path)
    elif kind == "bare pickled code":
        path.write_bytes(pickle.dumps(Trap(folder / "sprung"), protocol=2))
    elif kind == "whole module":
        torch.save(Net(), path)
    elif kind == "text":
        path.write_text("<!DOCTYPE html>")
    elif kind == "text as safetensors":
        path.write_text("version https://git-lfs.github.com/spec/v1")
    else:
        path.touch()
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "truncated safetensors",
        "truncated checkpoint",
        "pickled code",
        "bare pickled code",
        "whole module",
        "text",
        "text as safetensors",
        "empty",
        "empty safetensors",
    ],
)
def test_broken_and_unsafe_files_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = broken(kind, tmp_path)
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    message = str(caught.value)
    assert message.startswith(f"'{path}' cannot be loaded (")
    assert message.endswith("a checkpoint that torch.load(weights_only=True) accepts")
    assert "\n" not in message
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("path", ["nowhere.safetensors", "."])
def test_a_missing_file_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no weights file '.*'; check the path"):
        read_state(tmp_path / path)


@pytest.mark.parametrize(
    "content",
    [{"epoch": 3}, [torch.zeros(1)], torch.zeros(1), {}, {"state_dict": {"lr": 0.1}}],
    ids=["numbers", "list", "tensor", "empty", "wrapped numbers"],
)
def test_a_file_without_a_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"holds no state dict.*save model.state_dict\(\)"):
        read_state(tmp_path / "net.pth")


def test_tensors_are_read_as_they_are_stored(tmp_path: Path) -> None:
    stored: dict[str, Tensor] = {"half": torch.ones(2).half(), "count": torch.tensor(3)}
    torch.save(stored, tmp_path / "net.pth")
    state = read_state(tmp_path / "net.pth")
    assert {key: value.dtype for key, value in state.items()} == {
        "half": torch.float16,
        "count": torch.int64,
    }
