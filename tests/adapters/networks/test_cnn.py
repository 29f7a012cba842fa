"""Classifiers split in two."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from mmcam.adapters.networks.cnn import feature_sizes, split_cnn
from mmcam.errors import ModelError
from mmcam.models.registry import load

SMALL = {
    "torchvision:alexnet": ("classifier.6", 4096),
    "torchvision:vgg11": ("classifier.6", 4096),
    "torchvision:resnet18": ("fc", 512),
    "torchvision:inception_v3": ("fc", 2048),
    "torchvision:googlenet": ("fc", 1024),
    "torchvision:densenet121": ("classifier", 1024),
    "torchvision:mobilenet_v2": ("classifier.1", 1280),
    "torchvision:efficientnet_b0": ("classifier.1", 1280),
    "timm:resnet18": ("fc", 512),
    "timm:mobilenetv2_100": ("classifier", 1280),
    "timm:vgg11": ("head.fc", 4096),
}


@pytest.mark.parametrize("name", SMALL)
def test_trunk_and_head_compute_the_input_of_the_last_linear_layer(name: str) -> None:
    linear, features = SMALL[name]
    adapter = load(name, weights="random")
    model = adapter.model.eval()
    side = 299 if "inception" in name else 96 if "vgg" not in name else 64
    pixels = torch.randn(1, 3, side, side)
    given: list[torch.Tensor] = []
    handle = model.get_submodule(linear).register_forward_pre_hook(
        lambda module, args: given.append(args[0])
    )
    with torch.no_grad():
        model(pixels)
        handle.remove()
        trunk, head = split_cnn(model, adapter.layers[0], name)
        maps = trunk(pixels)
        torch.testing.assert_close(head(maps), given[0])
    assert maps.ndim == 4
    assert maps.shape[2] > 1
    assert feature_sizes(trunk, head, side) == (maps.shape[1], features)
    owned = {id(p) for p in model.parameters()}
    assert {id(p) for p in [*trunk.parameters(), *head.parameters()]} <= owned


def test_the_parts_of_a_trunk_keep_their_names() -> None:
    trunk, _ = split_cnn(torchvision.models.resnet18(), "layer4", "resnet18")
    assert "layer3.1.conv2.weight" in trunk.state_dict()
    with pytest.raises(AttributeError):
        trunk.get_submodule("fc")


class Shortcut(nn.Module):
    """The score depends on the picture through the trunk and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.trunk(x).mean((2, 3)) + x.mean())
        return y


def test_a_layer_that_can_be_bypassed_is_refused() -> None:
    with pytest.raises(ModelError, match="not on every path to the score"):
        split_cnn(Shortcut(), "trunk", "Shortcut")


def test_a_network_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="no linear layer after 'features'"):
        split_cnn(torchvision.models.squeezenet1_1(), "features", "squeezenet1_1")


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    class Branches(Shortcut):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    with pytest.raises(ModelError, match="cannot be split"):
        split_cnn(Branches(), "trunk", "Branches")


def test_timm_models_are_split_by_their_own_methods() -> None:
    model = timm.create_model("mobilenetv3_small_050")
    trunk, head = split_cnn(model, "bn2", "mobilenetv3")  # its head has a convolution
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole = model.forward_head(model.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(head(trunk(pixels)), whole)
    assert not list(head.parameters())
