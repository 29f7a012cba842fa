"""Gradient checkpointing and compilation change no map."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils import checkpoint

from mmcam.capture.plain_run import plain_run
from tests.snapshots import assert_as_found, snapshot


class Net(nn.Module):
    """Three stages; `use_reentrant` says how they are checkpointed, None that they are not."""

    def __init__(self, use_reentrant: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(5, 6, 3), nn.ReLU())
        self.head = nn.Linear(6, 3)
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        for stage in (self.first, self.second, self.third):
            if self.use_reentrant is None:
                x = stage(x)
            else:
                x = checkpoint.checkpoint(stage, x, use_reentrant=self.use_reentrant)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("layers", [None, ["first.0"], ["second"], ["first", "second.0", "third"]])
@pytest.mark.parametrize(
    "method", ["gradcam-signed", "guided-gradcam-signed", "scorecam", "ablationcam"]
)
def test_checkpointing_changes_no_map(
    use_reentrant: bool, layers: list[str] | None, method: str, wrapped: Callable[..., Any]
) -> None:
    plain, net = wrapped(Net()), Net(use_reentrant).train()
    sample = plain.sample(12, 14)
    (expected,) = plain.explain(sample, method, 2, layers)
    before = snapshot(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (result,) = wrapped(net).explain(sample, method, 2, layers)
    assert_as_found(net, before)
    assert result.keys() == expected.keys()
    for key, explanation in result.items():
        assert_close(explanation.cam, expected[key].cam)
    assert any(explanation.cam.any() for explanation in result.values())


def state() -> tuple[Any, ...]:
    """What `plain_run` changes."""
    return (
        checkpoint.CheckpointFunction,
        checkpoint._checkpoint_hook,
        torch._dynamo.eval_frame._stance.stance,
        torch._C._get_graph_executor_optimize(),
    )


def test_all_is_restored_whatever_the_order() -> None:
    """The contexts of several threads or generators may end in any order."""
    before = state()
    first, second = plain_run(), plain_run()
    first.__enter__()
    second.__enter__()
    inside = state()
    first.__exit__(None, None, None)
    assert state() == inside
    assert not any(a == b for a, b in zip(inside, before, strict=True))
    second.__exit__(None, None, None)
    assert state() == before
    with pytest.raises(KeyError), plain_run():
        raise KeyError
    assert state() == before


def test_fusing_is_off_in_each_thread() -> None:
    flags = []

    def run() -> None:
        with plain_run():
            flags.append(torch._C._get_graph_executor_optimize())
        flags.append(torch._C._get_graph_executor_optimize())

    with plain_run():
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert flags == [False, True]


def test_timm_with_checkpointing(wrapped: Callable[..., Any]) -> None:
    """Timm's models are checkpointed in evaluation mode too."""
    import timm

    net = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=24, num_classes=3
    )
    setup = wrapped(net, "blocks.1.norm1")
    sample = setup.sample(32, 32)
    expected = setup.cam(sample, "gradcam-signed", 1)
    net.set_grad_checkpointing()
    assert expected.any()
    assert_close(setup.cam(sample, "gradcam-signed", 1), expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_transformers_with_checkpointing(use_reentrant: bool, wrapped: Callable[..., Any]) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    net = ViTForImageClassification(config).train()
    setup = wrapped(net, "vit.layers.1.layernorm_before")
    sample = setup.sample(32, 32)
    expected = setup.cam(sample, "gradcam-signed", 1)
    net._set_gradient_checkpointing(
        True, partial(checkpoint.checkpoint, use_reentrant=use_reentrant)
    )
    assert expected.any()
    assert_close(setup.cam(sample, "gradcam-signed", 1), expected)
    assert net.training
