"""Recurrent layers have gradients on every device, whatever kernels they usually run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mmcam
from mmcam.capture.model_state import untouched
from tests.snapshots import assert_as_found, snapshot


class Reader(nn.Module):
    """A convolution whose columns a recurrent layer reads."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.rnn = kind(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.conv(x).mean(2).transpose(1, 2)
        states, _ = self.rnn(columns)
        logits: Tensor = self.head(states[:, -1])
        return logits


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_cudnn_and_onednn_are_off_inside_recurrent_layers_only(
    kind: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, cuDNN's recurrent kernels raise an error in the backward pass of evaluation."""
    net = Reader(kind)
    kernels: dict[str, list[bool]] = {"conv": [], "rnn": []}
    onednn: list[bool] = []
    run: Any = kind.forward  # type: ignore[attr-defined]

    def watched(*args: Any) -> Any:
        kernels["rnn"].append(torch.backends.cudnn.enabled)
        onednn.append(bool(torch.backends.mkldnn.enabled))
        return run(*args)

    monkeypatch.setattr(kind, "forward", watched)
    net.conv.register_forward_hook(
        lambda *call: kernels["conv"].append(torch.backends.cudnn.enabled)
    )
    pixels = torch.rand(1, 3, 6, 6)
    before = snapshot(net)
    with untouched(net):
        net(pixels)
        with untouched(net), torch.no_grad():
            net(pixels)
    assert kernels["rnn"] == [False, torch.backends.cudnn.enabled]
    assert kernels["conv"] == [torch.backends.cudnn.enabled] * 2
    assert onednn == [False, True]
    assert torch.backends.cudnn.enabled
    assert torch.backends.mkldnn.enabled
    assert_as_found(net, before)


@pytest.fixture
def operators_of_cudnn() -> Iterator[tuple[Any, Any]]:
    """The convolution and the recurrent layers of cuDNN, whose precision is set back."""
    cudnn: Any = torch.backends.cudnn
    if not hasattr(cudnn, "rnn"):
        pytest.skip("this release of torch has no precision of an operator")
    operators = cudnn.conv, cudnn.rnn
    before = [operator.fp32_precision for operator in operators]
    yield operators
    for operator, precision in zip(operators, before, strict=True):
        operator.fp32_precision = precision


def test_a_precision_set_for_each_operator_stays(
    operators_of_cudnn: tuple[Any, Any], wrapped: Callable[..., Any]
) -> None:
    """Torch refuses to read the one precision of cuDNN if that of its operators differs."""
    conv, rnn = operators_of_cudnn
    setup = wrapped(Reader(nn.LSTM).eval(), "conv")
    sample = setup.sample(6, 8)
    expected = setup.cam(sample, "gradcam", 1)
    conv.fp32_precision, rnn.fp32_precision = "ieee", "tf32"
    torch.testing.assert_close(setup.cam(sample, "gradcam", 1), expected)
    assert (conv.fp32_precision, rnn.fp32_precision) == ("ieee", "tf32")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_has_its_own_gradient(
    kind: Callable[..., nn.Module], wrapped: Callable[..., Any]
) -> None:
    net = Reader(kind).eval()
    setup = wrapped(net, "conv")
    sample = setup.sample(6, 8)
    cam = setup.cam(sample, "gradcam-signed", 1)
    maps: list[Tensor] = []
    hook = net.conv.register_forward_hook(lambda module, args, output: maps.append(output))
    score = net(setup.pixels(sample))[:, 1].sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(score, maps)
    expected = (gradient.mean((2, 3), keepdim=True) * maps[0]).sum(1)
    torch.testing.assert_close(cam[None], expected.detach())


@pytest.mark.gpu
def test_a_recurrent_classifier_is_explained_on_a_gpu() -> None:
    net = Reader(nn.LSTM).cuda().eval()
    model = mmcam.wrap(net, layer="conv")
    pixels = (torch.rand(32, 32, 3) * 255).byte().numpy()
    (explanation,) = mmcam.explain(model, pixels, mmcam.Classes([1]), method="gradcam-signed")
    assert explanation.cam.any()
