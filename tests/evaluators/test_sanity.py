"""Sanity checks: similarities against scikit-image and scipy, and models left as they were."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.feature import hog
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from mmcam.errors import EvaluationError, LayerError, MissingExtra
from mmcam.evaluators.sanity import (
    SIMILARITIES,
    absolute_rank_similarity,
    cascading_randomization,
    hog_similarity,
    random_label_similarity,
    rank_similarity,
    ssim,
)

NAN = math.nan


def noise(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def scaled(heatmap: np.ndarray) -> np.ndarray:
    return (heatmap - heatmap.min()) / np.ptp(heatmap)


@pytest.mark.parametrize("measure", SIMILARITIES.values())
@pytest.mark.parametrize("size", [(30, 40), (2, 26, 28)])
def test_a_map_is_like_itself_and_unlike_noise(
    measure: Callable[[np.ndarray, np.ndarray], float], size: tuple[int, ...]
) -> None:
    first, second = noise(*size), noise(*size, seed=1)
    assert measure(first, first) == pytest.approx(1)
    assert measure(first, 5 * first) == pytest.approx(1)
    assert abs(measure(first, second)) < 0.35
    assert measure(first, second) == pytest.approx(measure(second, first))


@pytest.mark.parametrize("measure", SIMILARITIES.values())
def test_constant_maps_are_like_nothing(
    measure: Callable[[np.ndarray, np.ndarray], float],
) -> None:
    assert measure(noise(30, 30), np.full((30, 30), 0.3)) == pytest.approx(0, abs=0.02)


def test_ranks_with_and_without_signs() -> None:
    # Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / 60 = 0.8; absolute values 3 1 2 4 and 3 1 0 5.
    first, second = np.array([[-3.0, -1.0, 2.0, 4.0]]), np.array([[-3.0, 1.0, 0.0, 5.0]])
    assert rank_similarity(first, second) == pytest.approx(0.8)
    expected = scipy.stats.spearmanr([3, 1, 2, 4], [3, 1, 0, 5]).statistic
    assert absolute_rank_similarity(first, second) == pytest.approx(expected)
    assert rank_similarity(first, -first) == pytest.approx(-1)
    assert absolute_rank_similarity(first, -first) == pytest.approx(1)


@given(st.integers(0, 2**32 - 1), st.integers(11, 25), st.integers(11, 25))
def test_ssim_is_scikit_images(seed: int, height: int, width: int) -> None:
    first, second = noise(height, width, seed=seed), noise(height, width, seed=seed + 1)
    second = second + first
    expected = structural_similarity(
        scaled(first),
        scaled(second),
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(first, second) == pytest.approx(expected, abs=1e-6)


def test_ssim_of_inverted_maps_is_negative() -> None:
    assert ssim(noise(20, 20), -noise(20, 20)) < -0.5


def test_ssim_of_a_clip_is_the_mean_of_its_frames() -> None:
    first, second = noise(3, 14, 15), noise(3, 14, 15, seed=1)
    for clip in (first, second):
        clip[:, 0, 0], clip[:, 0, 1] = -9, 9  # one scale for all frames
    frames = [ssim(a, b) for a, b in zip(first, second, strict=True)]
    assert ssim(first, second) == pytest.approx(np.mean(frames))


def test_hog_is_the_correlation_of_descriptors() -> None:
    first, second = noise(40, 48), noise(40, 48) + noise(40, 48, seed=1)
    expected = np.corrcoef(hog(scaled(first)), hog(scaled(second)))[0, 1]
    assert hog_similarity(first, second) == pytest.approx(expected)


def test_without_scikit_image_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mmcam\[evaluate\]'"):
        hog_similarity(noise(30, 30), noise(30, 30))


@pytest.mark.parametrize("measure", [ssim, hog_similarity])
def test_structure_is_compared_where_both_have_seen(
    measure: Callable[[np.ndarray, np.ndarray], float],
) -> None:
    first, second = noise(40, 40), noise(40, 40) + noise(40, 40, seed=1)
    expected = measure(first[4:, :30], second[4:, :30])
    first[:4] = NAN
    second[:, 30:] = NAN
    assert measure(first, second) == pytest.approx(expected)
    first[20, 20] = NAN
    with pytest.raises(EvaluationError, match="not form a rectangle"):
        measure(first, second)
    with pytest.raises(EvaluationError, match="no cell is visible"):
        measure(NAN * first, second)
    with pytest.raises(EvaluationError, match="cannot be compared"):
        measure(first, second.reshape(20, 80))
    with pytest.raises(EvaluationError, match="smaller than"):
        measure(noise(9, 40), noise(9, 40))


def test_another_label_is_drawn() -> None:
    labels: list[int] = []

    def explain(label: int) -> np.ndarray:
        labels.append(label)
        return noise(5, 5, seed=label)

    drawn = set()
    for seed in range(40):
        labels.clear()
        value = random_label_similarity(explain, 2, 4, seed=seed)
        first, second = labels
        assert first == 2
        assert value == rank_similarity(noise(5, 5, seed=2), noise(5, 5, seed=second))
        drawn.add(second)
    assert drawn == {0, 1, 3}
    with pytest.raises(EvaluationError, match="no other label"):
        random_label_similarity(explain, 0, 1)
    with pytest.raises(EvaluationError, match="no other label"):
        random_label_similarity(explain, 4, 4)


class Net(nn.Module):
    """Convolution, statistics, a bare parameter, and a weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 2.0), requires_grad=False)
        self.head = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        self.twin = nn.Linear(144, 5)
        self.twin.weight = self.head[2].weight
        self.register_buffer("count", torch.tensor(7))
        self.norm.running_mean = torch.randn(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scale * self.norm(self.conv(x)))


def state(model: nn.Module) -> dict[str, tuple[int, bytes, bool]]:
    """Each tensor's identity, bits and flag."""
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers()),
    }
    return {
        name: (id(t), t.detach().numpy().tobytes(), t.requires_grad) for name, t in tensors.items()
    }


@pytest.fixture
def net() -> Net:
    model = Net().train()
    model.norm.eval()
    with torch.no_grad():
        # Bits that arithmetic would not keep.
        model.conv.bias.copy_(torch.tensor([-0.0, NAN, 1e-45, torch.inf]))
    return model


def test_layers_are_drawn_from_the_top_and_put_back(net: Net) -> None:
    before, modes = state(net), [m.training for m in net.modules()]
    random = torch.get_rng_state()
    states = cascading_randomization(net, lambda: state(net))
    assert list(states) == [None, "twin", "head.2", "norm", "conv", ""]
    assert states[None] == before == state(net)
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)

    def changed(layer: str) -> set[str]:
        return {name for name, current in states[layer].items() if current[1] != before[name][1]}

    top = {"twin.weight", "head.2.weight", "twin.bias"}
    assert changed("twin") == top
    assert changed("head.2") == top | {"head.2.bias"}
    # The running mean alone differs from what batch norm starts with.
    assert changed("norm") == changed("head.2") | {"norm.running_mean"}
    assert changed("conv") == changed("norm") | {"conv.weight", "conv.bias"}
    assert changed("") == changed("conv") | {"scale"}
    assert all(
        current[0] == before[name][0] for s in states.values() for name, current in s.items()
    )


def test_one_layer_at_a_time(net: Net) -> None:
    before = state(net)
    layers = ["conv", "head"]
    states = cascading_randomization(net, lambda: state(net), layers, independent=True)
    changed = [
        {name for name, current in states[layer].items() if current[1] != before[name][1]}
        for layer in layers
    ]
    assert changed == [
        {"conv.weight", "conv.bias"},
        {"head.2.weight", "twin.weight", "head.2.bias"},
    ]
    assert state(net) == before


def test_a_bare_parameter_is_drawn_around_its_mean(net: Net) -> None:
    with torch.no_grad():
        net.scale.copy_(torch.tensor([1.0, 3.0, 1.0, 3.0]).view(4, 1, 1))
    before = state(net)
    scales = [cascading_randomization(net, net.scale.clone, seed=seed)[""] for seed in range(2)]
    assert not torch.equal(scales[0], scales[1])
    assert all(torch.allclose(s.mean(), torch.tensor(2.0), atol=2) for s in scales)
    assert state(net) == before


def test_the_seed_alone_says_what_is_drawn(net: Net) -> None:
    def weights() -> Tensor:
        return net.twin.weight.detach().clone()

    torch.manual_seed(1)
    first = cascading_randomization(net, weights, ["twin"], seed=3)["twin"]
    torch.manual_seed(2)
    assert torch.equal(cascading_randomization(net, weights, ["twin"], seed=3)["twin"], first)
    assert not torch.equal(cascading_randomization(net, weights, ["twin"], seed=4)["twin"], first)


@pytest.mark.parametrize("at", [2, 4])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_model_is_put_back_when_explaining_fails(
    net: Net, at: int, error: type[BaseException]
) -> None:
    before, calls = state(net), 0

    def explain() -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            net.conv.weight = nn.Parameter(torch.zeros(1))
            raise error("stop")

    with pytest.raises(error, match="stop"):
        cascading_randomization(net, explain)
    assert state(net) == before


def test_the_model_is_put_back_when_drawing_fails(net: Net) -> None:
    before = state(net)

    def fail() -> None:
        nn.init.zeros_(net.norm.weight)
        raise RuntimeError("no draw")

    net.norm.reset_parameters = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no draw"):
        cascading_randomization(net, lambda: None)
    assert state(net) == before


def test_layers_that_cannot_be_drawn_are_errors(net: Net) -> None:
    with pytest.raises(LayerError, match="no layer 'cnov'; nearest: conv"):
        cascading_randomization(net, lambda: None, ["cnov"])
    with pytest.raises(LayerError, match=r"'head.0' has no parameters"):
        cascading_randomization(net, lambda: None, ["head.0"])


def test_a_seed_does_not_give_the_models_own_weights_again() -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        layer = nn.Linear(4, 4)
        drawn = cascading_randomization(layer, layer.weight.clone, seed=seed)
        assert not torch.allclose(drawn[None], drawn[""])


def test_a_map_of_a_random_model_differs() -> None:
    """An edge detector passes for an explanation until the model is drawn anew."""
    model = nn.Conv2d(1, 1, 3, padding=1)
    picture = torch.from_numpy(noise(1, 1, 24, 24)).float()

    def response() -> np.ndarray:
        return model(picture)[0, 0].detach().numpy()

    def edges() -> np.ndarray:
        return np.gradient(picture[0, 0].numpy())[0]

    for explain, alike in ((response, False), (edges, True)):
        maps = cascading_randomization(nn.Sequential(model), explain)
        values = [rank_similarity(maps[None], heatmap) for heatmap in maps.values()]
        assert values[0] == pytest.approx(1)
        assert (values[1] > 0.99) is alike
