"""The guide that shows one task with four tools: every block runs, and mmcam's is the shortest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

GUIDE = Path(__file__).parents[1] / "examples/guides/peers.md"
MODULES = {
    "pytorch-grad-cam": "pytorch_grad_cam",
    "Captum": "captum",
    "torch-cam": "torchcam",
    "mmcam": "mmcam",
}


def tasks() -> dict[str, dict[str, str]]:
    """Title of a task -> tool -> its code."""
    found = {}
    for section in GUIDE.read_text(encoding="utf-8").split("\n## ")[1:]:
        blocks = re.findall(r"```python\n# ([\w-]+)[^\n]*\n(.*?)```", section, re.DOTALL)
        found[section.partition("\n")[0]] = dict(blocks)
    return found


TASKS = tasks()
CASES = [(task, tool) for task, blocks in TASKS.items() for tool in blocks]


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval()


@pytest.mark.parametrize(("task", "tool"), CASES)
def test_a_block_runs(
    task: str, tool: str, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(MODULES[tool], reason=f"{tool} is not installed")
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photo.jpg")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    transform = torchvision.transforms.ToTensor()
    names: dict[str, Any] = {
        "model": network,
        "images": images,
        "image": images[:1],
        "transform": transform,
    }
    exec(compile(TASKS[task][tool], f"{GUIDE.name}: {task}, {tool}", "exec"), names)
    results = [name for name in ("maps", "product") if name in names]
    assert results or Image.open("overlay.png").size[0] > 0


@pytest.mark.parametrize("task", TASKS)
def test_no_tool_needs_fewer_lines_than_mmcam(task: str) -> None:
    lines = {tool: len(code.split("\n")) for tool, code in TASKS[task].items()}
    assert len(lines) >= 3
    assert lines["mmcam"] == min(lines.values()), lines
