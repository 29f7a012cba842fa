"""Shape checks for every function of mmcam, and shared fixtures."""

from __future__ import annotations

from jaxtyping import install_import_hook

# Before the first import of mmcam. The numeric tower: an int is accepted for a float.
install_import_hook("mmcam", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import os  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import mmcam  # noqa: E402
from mmcam.adapters.base.preprocess import Preprocess  # noqa: E402
from mmcam.engine.pictures import Plan, explain_samples  # noqa: E402
from mmcam.grids import to_grid  # noqa: E402

torch.set_num_threads(1)  # inputs are tiny; more threads wait for each other on a busy machine
settings.register_profile("tests", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real models, photos and clips."""
    folder = os.environ.get("MMCAM_ASSETS")
    if not folder:
        pytest.skip("MMCAM_ASSETS is not set; it names the folder of models, photos and clips")
    return Path(folder)


class Setup:
    """A bare module as an adapter whose input is the picture's or clip's pixels divided by 255."""

    def __init__(self, module: nn.Module, layer: Any = None, **wrap: Any) -> None:
        frames = wrap.pop("frames", None)
        recipe = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), frames=frames)
        self.adapter = mmcam.wrap(module, recipe, layer=layer, **wrap)

    @staticmethod
    def sample(*size: int, seed: int = 0) -> mmcam.Sample:
        """Noise of `size` (h, w) or (t, h, w)."""
        noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        return mmcam.Sample(pixels=noise)

    def pixels(self, *samples: mmcam.Sample) -> Tensor:
        """The model's input for these samples."""
        return self.adapter.prepare(samples, mmcam.Classes()).pixels

    def explain(
        self,
        samples: mmcam.Sample | Sequence[mmcam.Sample],
        methods: str | Sequence[str],
        task: Any,
        layers: Sequence[str] | None = None,
        **options: Any,
    ) -> list[dict[tuple[str, str, str], mmcam.Explanation]]:
        """For each sample: (method, label, layer) to explanation. Labels may be numbers."""
        samples = [samples] if isinstance(samples, mmcam.Sample) else samples
        plan = Plan.of([methods] if isinstance(methods, str) else methods, False)
        if isinstance(task, int):
            task = mmcam.Classes([task])
        results = explain_samples(self.adapter, samples, task, plan, layers, **options)
        return [
            {(e.method, e.label, e.layer): e for e in result.explanations} for result in results
        ]

    def cam(
        self, sample: mmcam.Sample, method: str, task: Any, layer: str | None = None, **options: Any
    ) -> Tensor:
        """The one map of one sample."""
        layers = None if layer is None else [layer]
        (explanations,) = self.explain(sample, method, task, layers, **options)
        (explanation,) = explanations.values()
        return explanation.cam


def evenly(layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
    """A user's own `grid`, whose cells cover the input evenly, as other libraries draw them."""
    return to_grid(tensor, space)


@pytest.fixture
def wrapped_evenly() -> Callable[..., Setup]:
    """The same as `wrapped`, with maps that are enlarged as other libraries do."""
    return partial(Setup, grid=evenly)


@pytest.fixture
def wrapped() -> Callable[..., Setup]:
    """`wrapped(module, layer, ...)`: a wrapped module, with short methods to explain it."""
    return Setup
