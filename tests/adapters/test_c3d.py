"""C3D: the published shapes and names, and the names of the ports."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mmcam.adapters.networks import c3d
from mmcam.errors import InputError, ModelError

Port = Callable[[dict[str, Tensor]], dict[str, Tensor]]

PUBLISHED = {
    "conv1": (64, 16, 112, 112),
    "pool1": (64, 16, 56, 56),
    "conv2": (128, 16, 56, 56),
    "pool2": (128, 8, 28, 28),
    "conv3a": (256, 8, 28, 28),
    "conv3b": (256, 8, 28, 28),
    "pool3": (256, 4, 14, 14),
    "conv4a": (512, 4, 14, 14),
    "conv4b": (512, 4, 14, 14),
    "pool4": (512, 2, 7, 7),
    "conv5a": (512, 2, 7, 7),
    "conv5b": (512, 2, 7, 7),
    "relu5b": (512, 2, 7, 7),
    "pool5": (512, 1, 4, 4),
    "fc6": (4096,),
    "fc7": (4096,),
    "fc8": (487,),
}
CONVOLUTIONS = ("conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")
LAYERS = (*CONVOLUTIONS, "fc6", "fc7", "fc8")
KEYS = [f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")]


def tiny(size: tuple[int, int, int] = (16, 32, 32)) -> c3d.C3D:
    torch.manual_seed(0)
    return c3d.C3D(6, channels=(2, 3, 4, 5, 6), hidden=8, size=size).eval()


def shapes(model: nn.Module, clip: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of every layer's output, without the batch."""
    recorded: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> None:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            recorded[name] = tuple(output.shape[1:])

        model.get_submodule(name).register_forward_hook(hook)

    for name, _ in model.named_children():
        record(name)
    model(clip)
    return recorded


def test_published_shapes() -> None:
    with torch.device("meta"):
        recorded = shapes(c3d.C3D(), torch.empty(2, 3, c3d.FRAMES, c3d.CROP, c3d.CROP))
    assert {name: recorded[name] for name in PUBLISHED} == PUBLISHED


def test_published_parameters() -> None:
    with torch.device("meta"):
        state = c3d.C3D().state_dict()
    assert list(state) == KEYS
    assert state["conv1.weight"].shape == (64, 3, 3, 3, 3)
    assert state["fc6.weight"].shape == (4096, 8192)
    assert sum(tensor.numel() for tensor in state.values()) == 79_991_015


def test_small_network_for_training() -> None:
    small = c3d.C3D(6, channels=(8, 16, 32, 64, 64), hidden=128, size=(16, 112, 112))
    assert small.fc6.in_features == 64 * 1 * 4 * 4
    assert small.eval()(torch.zeros(1, 3, 16, 112, 112)).shape == (1, 6)


@pytest.mark.parametrize(
    "size", [(16, 16, 16), (17, 31, 33), (24, 48, 64), (32, 63, 95), (16, 96, 112)]
)
def test_fc6_fits_the_output_of_pool5(size: tuple[int, int, int]) -> None:
    model = tiny(size)
    assert model(torch.zeros(1, 3, *size)).shape == (1, 6)
    pooled = shapes(model, torch.zeros(1, 3, *size))["pool5"]
    assert model.fc6.in_features == torch.Size(pooled).numel()


def test_forward_equals_the_paper() -> None:
    model, clip = tiny(), torch.randn(2, 3, 16, 32, 32)
    x, state = clip, model.state_dict()
    pools: dict[str, int | tuple[int, int, int]] = {
        "conv1": (1, 2, 2),
        "conv2": 2,
        "conv3b": 2,
        "conv4b": 2,
    }
    for name in CONVOLUTIONS:
        x = torch.conv3d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).relu()
        if name in pools:
            x = torch.max_pool3d(x, pools[name])
    x = torch.max_pool3d(x, 2, padding=(0, 1, 1)).flatten(1)
    for name in ("fc6", "fc7"):
        x = (x @ state[f"{name}.weight"].T + state[f"{name}.bias"]).relu()
    expected = x @ state["fc8.weight"].T + state["fc8.bias"]
    torch.testing.assert_close(model(clip), expected)


def test_layer_to_explain_holds_the_rectified_maps_of_conv5b() -> None:
    model = tiny()
    outputs: dict[str, Tensor] = {}
    for name in ("conv5b", c3d.LAYER):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: outputs.update({name: output})
        )
    logits = model(torch.randn(1, 3, 16, 32, 32))
    torch.testing.assert_close(outputs[c3d.LAYER], outputs["conv5b"].relu())
    assert (outputs["conv5b"] < 0).any()
    (gradient,) = torch.autograd.grad(logits[0, 3], outputs[c3d.LAYER])
    assert gradient.any()


def test_a_new_network_distinguishes_clips() -> None:
    torch.manual_seed(0)
    model = c3d.C3D(6, channels=(8, 16, 32, 64, 64), hidden=128, size=(16, 32, 32)).eval()
    assert model(torch.randn(8, 3, 16, 32, 32)).std(dim=0).min() > 0.01


def test_dropout_is_half_and_only_in_training() -> None:
    model, clip = tiny(), torch.randn(1, 3, 16, 32, 32)
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    torch.testing.assert_close(model(clip), model(clip))


def features_and_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of ports with two nn.Sequential."""
    indices = dict(zip(CONVOLUTIONS, (0, 3, 6, 8, 11, 13, 16, 18), strict=True))
    names = {name: f"features.{index}" for name, index in indices.items()}
    names |= {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    return {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": state[key] for key in state}


def mmaction(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of MMAction2's recogniser."""
    names = {"conv1": "conv1a", "conv2": "conv2a", "fc8": "cls_head.fc_cls"}
    renamed = {}
    for key, tensor in state.items():
        layer, kind = key.split(".")
        name = names.get(layer, layer)
        name = f"{name}.conv" if layer.startswith("conv") else name
        renamed[f"{name}.{kind}" if layer == "fc8" else f"backbone.{name}.{kind}"] = tensor
    return renamed


def data_parallel(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{key}": tensor for key, tensor in state.items()}


def sequential_convolutions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.replace(".", ".0.", 1) if key.startswith("conv") else key: tensor
        for key, tensor in state.items()
    }


@pytest.mark.parametrize(
    "port", [dict, data_parallel, sequential_convolutions, features_and_classifier, mmaction]
)
def test_rename_undoes_every_known_port(port: Port) -> None:
    state = tiny().state_dict()
    renamed = c3d.rename(port(state))
    assert list(renamed) == KEYS
    assert all(renamed[key] is state[key] for key in KEYS)
    tiny().load_state_dict(renamed)


def test_rename_undoes_wrappers_of_a_port() -> None:
    state = tiny().state_dict()
    assert list(c3d.rename(data_parallel(features_and_classifier(state)))) == KEYS


def test_rename_keeps_unknown_names() -> None:
    assert list(c3d.rename({"bn1.weight": torch.ones(1)})) == ["bn1.weight"]


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(ModelError, match="8 x 112 x 112"):
        c3d.C3D(size=(8, 112, 112))


def test_clips_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"16 x 40 x 32.*16 x 32 x 32"):
        tiny()(torch.zeros(1, 3, 16, 40, 32))


def test_preprocessing_of_the_published_weights() -> None:
    top, left = (round((full - c3d.CROP) / 2) for full in c3d.RESIZE)
    assert (top, left) == (8, 30)
    assert c3d.CHANNELS == "BGR"
    assert len(c3d.MEAN) == 3
