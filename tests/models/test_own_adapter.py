"""The adapter of the docstring of `mmcam.Adapter`, without a base class."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmcam


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(4, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(pixels).relu().mean((2, 3)))
        return logits


def resize(pixels: Any) -> Tensor:
    picture = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    return F.interpolate(picture[None], (16, 16))[0]


def adapter_of_the_docstring(net: nn.Module) -> Any:
    """The example of `mmcam.Adapter`, executed."""
    lines = (mmcam.Adapter.__doc__ or "").partition("Example:")[2].splitlines()
    code = "\n".join(line.strip()[4:] for line in lines if line.strip()[:3] in (">>>", "..."))
    names: dict[str, Any] = {"mmcam": mmcam, "torch": torch, "my_resize": resize}
    exec(textwrap.dedent(code), names)
    return names["Plain"](net)


def test_an_adapter_without_a_base_class_is_explained() -> None:
    net = Net()
    adapter = adapter_of_the_docstring(net)
    assert isinstance(adapter, mmcam.Adapter)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    (explanation,) = mmcam.explain(adapter, pixels, mmcam.Classes(), method="gradcam-signed")
    assert explanation.heatmap().shape == (24, 40)
    maps = net.trunk(resize(pixels)[None])
    (gradient,) = torch.autograd.grad(net.head(maps.relu().mean((2, 3)))[0, 0], maps)
    expected = (gradient.mean((2, 3), keepdim=True) * maps).sum(1)[0].detach()
    torch.testing.assert_close(explanation.cam, expected, rtol=1e-4, atol=1e-7)
