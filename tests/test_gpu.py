"""On a CUDA device (marker `gpu`): the same maps, and an unchanged random state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mmcam
from mmcam.methods import METHODS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:r3d_18"])
def test_maps_on_the_gpu_equal_those_on_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    on_cpu = mmcam.load(name, weights="random")
    on_gpu = mmcam.load(name, weights="random", device="cuda")
    on_gpu.model.load_state_dict(on_cpu.model.state_dict())
    frames = [on_cpu.window.frames] if on_cpu.window else []
    noise = np.random.default_rng(0).integers(0, 256, (*frames, 120, 160, 3), dtype=np.uint8)
    # Re-scoring a picture for every channel takes minutes on a CPU.
    methods = [m for m in METHODS if m not in ("scorecam", "ablationcam", "gradcam++softmax")]
    task = mmcam.Classes([3, 7])
    random_state = torch.cuda.get_rng_state()
    gpu_maps = mmcam.explain(on_gpu, noise, task, method=methods, guided=True)
    assert torch.equal(torch.cuda.get_rng_state(), random_state)
    cpu_maps = mmcam.explain(on_cpu, noise, task, method=methods, guided=True)
    for gpu_map, cpu_map in zip(gpu_maps, cpu_maps, strict=True):
        scale = cpu_map.cam.abs().max().clamp(min=1e-12)
        assert float((gpu_map.cam.cpu() - cpu_map.cam).abs().max() / scale) < 2e-2, gpu_map.method
