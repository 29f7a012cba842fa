"""Every weighting against its formula, written out a second time in float64, at ranks 1 to 3."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from mmcam.errors import MethodError
from mmcam.methods import METHODS
from mmcam.methods.cams import (
    Moments,
    cam,
    grad_cam,
    grad_cam_framewise,
    grad_cam_plus_plus,
    grad_cam_plus_plus_softmax,
    weighted_sum,
)

PURE = [name for name, method in METHODS.items() if method.needs == "gradient"]
SHAPES = st.tuples(
    st.integers(1, 3), st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=3)
)


class Case(NamedTuple):
    activation: Tensor
    gradient: Tensor


@st.composite
def cases(draw: st.DrawFn, positive: bool = True) -> Case:
    """Random float64 activations (positive, as behind a ReLU) and gradients of both signs."""
    batch, channels, grid = draw(SHAPES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    size = (batch, channels, *grid)
    activation = torch.randn(size, generator=generator, dtype=torch.float64)
    gradient = torch.randn(size, generator=generator, dtype=torch.float64)
    return Case(activation.abs() if positive else activation, gradient)


def fitted(name: str, case: Case) -> Case:
    """The case, with a gradient that is constant over the grid for CAM and its rank for others."""
    if name != "cam":
        return case
    flat = case.gradient.flatten(2)[..., :1]
    return Case(
        case.activation,
        flat.expand(*flat.shape[:2], case.activation[0, 0].numel())
        .reshape(case.activation.shape)
        .contiguous(),
    )


def compute(name: str, case: Case) -> Tensor:
    return METHODS[name].compute(*fitted(name, case))


def plus_plus(rectify: bool) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def weights(a: np.ndarray, g: np.ndarray) -> np.ndarray:
        """WACV eq. 5, 13, 17, 18 and 10, with exp(S) for some S and its derivatives, literally."""
        y = math.exp(1.7)
        first, second, third = y * g, y * g**2, y * g**3
        w = np.zeros(len(a))
        for k in range(a.shape[0]):
            for ij in range(a.shape[1]):
                denominator = 2 * second[k, ij] + a[k].sum() * third[k, ij]
                alpha = second[k, ij] / denominator
                w[k] += alpha * (max(first[k, ij], 0) if rectify else first[k, ij]) / y
        return np.maximum(w @ a, 0)

    return weights


def xgrad(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    weights = [sum(g[k] * a[k]) / sum(a[k]) for k in range(len(a))]
    return np.maximum(np.array(weights) @ a, 0)


def principal(a: np.ndarray) -> np.ndarray:
    """The cells' coordinates along the first eigenvector of the channels' second moments."""
    _, vectors = np.linalg.eigh(a @ a.T)
    coordinates = vectors[:, -1] @ a
    return np.maximum(coordinates * np.sign(coordinates.sum()), 0)


FORMULAS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "gradcam": lambda a, g: np.maximum(np.einsum("k,kn->n", g.sum(1) / g.shape[1], a), 0),
    "gradcam-signed": lambda a, g: np.einsum("kn,km->m", g, a) / g.shape[1],
    "gradcam-abs": lambda a, g: np.maximum(np.einsum("kn,km->m", abs(g), a) / g.shape[1], 0),
    "gradcam-max": lambda a, g: np.maximum(np.array([max(row) for row in g]) @ a, 0),
    "gradcam-guided-relu": lambda a, g: np.maximum(g.mean(1) @ a, 0),
    "gradcam-deconv-relu": lambda a, g: np.maximum(g.mean(1) @ a, 0),
    "gradcam++": plus_plus(rectify=True),
    "gradcam++all": plus_plus(rectify=False),
    "hirescam": lambda a, g: np.maximum(np.einsum("kn,kn->n", g, a), 0),
    "elementwise": lambda a, g: sum(np.maximum(g[k] * a[k], 0) for k in range(len(a))),
    "layercam": lambda a, g: np.maximum(np.einsum("kn,kn->n", np.maximum(g, 0), a), 0),
    "xgradcam": xgrad,
    "activation": lambda a, g: np.maximum(a.sum(0), 0),
    "eigencam": lambda a, g: principal(a),
    "eigengradcam": lambda a, g: principal(a * g),
    "cam": lambda a, g: np.einsum("kn,km->m", g, a),
}
"""Name to formula: `[channel, cell]` activation and gradient of one sample -> `[cell]`."""


SCORELESS = ("activation", "eigencam")
"""Methods that do not look at the score."""


def test_every_pure_method_has_its_formula_here() -> None:
    assert {*FORMULAS, "gradcam-framewise"} == set(PURE)


@pytest.mark.parametrize("name", FORMULAS)
@given(case=cases())
def test_map_is_its_formula_at_every_rank(name: str, case: Case) -> None:
    activation, gradient = fitted(name, case)
    pairs = zip(activation.flatten(2).numpy(), gradient.flatten(2).numpy(), strict=True)
    expected = np.stack([FORMULAS[name](a, g) for a, g in pairs])
    actual = compute(name, case)
    assert actual.shape == (len(activation), *activation.shape[2:])
    assert_close(actual.flatten(1), torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["gradcam", "gradcam-signed", "hirescam", "layercam", "xgradcam"])
@given(case=cases(positive=False))
def test_formula_holds_for_negative_activations(name: str, case: Case) -> None:
    pairs = zip(*(values.flatten(2).numpy() for values in case), strict=True)
    expected = np.stack([FORMULAS[name](a, g) for a, g in pairs])
    assert_close(compute(name, case).flatten(1), torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", PURE)
@given(case=cases(), exponent=st.integers(-8, 8))
def test_map_scales_with_its_layer(name: str, case: Case, exponent: int) -> None:
    """A layer s times as large has gradients 1 / s as large, and the score's share is the same."""
    scale = 2.0**exponent
    scaled = Case(case.activation * scale, case.gradient / scale)
    growth = scale if name in SCORELESS else 1.0
    assert_close(compute(name, scaled), compute(name, case) * growth, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", sorted({*PURE} - {"gradcam++", "gradcam++all"}))
@given(case=cases(), exponent=st.integers(-8, 8))
def test_map_scales_with_the_score(name: str, case: Case, exponent: int) -> None:
    scale = 2.0**exponent
    growth = 1.0 if name in SCORELESS else scale
    scaled = Case(case.activation, case.gradient * scale)
    assert_close(compute(name, scaled), compute(name, case) * growth, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", PURE)
@given(case=cases(), seed=st.integers(0, 1000))
def test_order_of_channels_does_not_matter(name: str, case: Case, seed: int) -> None:
    order = torch.randperm(case.activation.shape[1], generator=torch.Generator().manual_seed(seed))
    shuffled = Case(case.activation[:, order], case.gradient[:, order])
    assert_close(compute(name, shuffled), compute(name, case), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", PURE)
@given(case=cases())
def test_samples_of_a_batch_do_not_touch_each_other(name: str, case: Case) -> None:
    single = [
        compute(name, Case(case.activation[i : i + 1], case.gradient[i : i + 1]))
        for i in range(len(case.activation))
    ]
    assert_close(compute(name, case), torch.cat(single), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", PURE)
@given(case=cases())
def test_dead_channel_changes_nothing(name: str, case: Case) -> None:
    def with_dead(values: Tensor) -> Tensor:
        return torch.cat([values, torch.zeros_like(values[:, :1])], 1)

    extended = Case(with_dead(case.activation), with_dead(fitted(name, case).gradient))
    assert_close(compute(name, extended), compute(name, case), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", PURE)
@given(case=cases())
def test_nothing_gives_a_zero_map(name: str, case: Case) -> None:
    still = torch.zeros_like(case.activation)
    assert not compute(name, Case(still, case.gradient)).any()
    if name not in SCORELESS:  # the score plays no part in it
        assert not compute(name, Case(case.activation, still)).any()


@pytest.mark.parametrize("name", PURE)
def test_dead_channel_with_a_gradient_is_finite(name: str) -> None:
    case = Case(torch.rand(1, 3, 2, 2), torch.ones(1, 3, 2, 2))
    case.activation[:, 1] = 0
    assert compute(name, case).isfinite().all()
    assert compute(name, case).any()


def test_weights_of_a_worked_example() -> None:
    maps = [[[1.0, 1], [1, 1]], [[1, 1], [0, 0]], [[1, 0.5], [0, 0]], [[0.5, 0], [0, 0]]]
    ones = torch.eye(4).view(1, 4, 2, 2)  # channel k is lit in cell k alone
    actual = grad_cam(ones, torch.tensor([maps]))
    assert_close(actual, torch.tensor([[[1, 0.5], [0.375, 0.125]]]))


def test_framewise_weights_are_pooled_over_space_alone() -> None:
    a, g = torch.rand(2, 3, 4, 2, 5).double(), torch.randn(2, 3, 4, 2, 5).double()
    slices = [grad_cam(a[:, :, t], g[:, :, t]) for t in range(4)]
    assert_close(grad_cam_framewise(a, g), torch.stack(slices, 1))
    assert not torch.allclose(grad_cam_framewise(a, g), grad_cam(a, g))


@given(case=cases())
def test_framewise_without_time_is_grad_cam(case: Case) -> None:
    if case.activation.ndim < 5:
        assert_close(grad_cam_framewise(*case), grad_cam(*case))


@given(case=cases())
def test_exponential_score_cancels_in_plus_plus(case: Case) -> None:
    """No exp(S) is left in the map, so a score of 1e4, whose exp is infinite, has a finite one."""
    large = Case(case.activation.float() * 1e4, case.gradient.float())
    actual = grad_cam_plus_plus(*large)
    assert actual.isfinite().all()
    literal = plus_plus(rectify=True)
    pairs = zip(*(values.double().flatten(2).numpy() for values in large), strict=True)
    expected = torch.from_numpy(np.stack([literal(a, g) for a, g in pairs]))
    assert_close(actual.double().flatten(1), expected, rtol=1e-3, atol=1e-2)


def test_tiny_gradients_keep_their_weights_in_plus_plus() -> None:
    """Where an epsilon in the denominator would outweigh them: alpha tends to one half."""
    a, g = torch.rand(1, 2, 3, 3).double(), torch.randn(1, 2, 3, 3).double()
    tiny = grad_cam_plus_plus(a, g * 1e-9) / 1e-9
    half = weighted_sum(a, 0.5 * g.relu().flatten(2).sum(2)).relu()
    assert_close(tiny, half, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["gradcam++", "gradcam++all"])
def test_negative_channel_counts_as_empty_in_plus_plus(name: str) -> None:
    """With sum(A) = -2 the denominator 2 + sum(A) g of eq. 19 vanishes at g = 1."""
    activation = torch.tensor([[[-3.0, 1.0]]]).double()
    actual = METHODS[name].compute(activation, torch.ones_like(activation))
    assert_close(actual, torch.tensor([[0.0, 1.0]]).double())  # w = 1/2 + 1/2


@pytest.mark.parametrize("sign", [1, -1])
def test_eigen_map_is_positive_on_the_whole(sign: int) -> None:
    a = sign * torch.tensor([[[3.0, 2, 1, 0.5]], [[-1, 0, 0, 0.1]]]).double()
    actual = METHODS["eigencam"].compute(a, torch.zeros_like(a))
    assert_close(actual[0], torch.tensor([3.0, 2, 1, 0.5]).double())
    assert_close(actual[1], torch.tensor([1.0, 0, 0, 0]).double())


@pytest.mark.parametrize("size", [(3, 3), (2, 2, 2)])
def test_cam_refuses_a_gradient_that_varies(size: tuple[int, ...]) -> None:
    varying = torch.ones(1, 2, *size)
    varying[0, 0, 0] = 1.001
    with pytest.raises(MethodError, match="'gradcam', which equals CAM"):
        cam(torch.rand(1, 2, *size), varying)


def test_cam_bears_with_rounding() -> None:
    gradient = torch.full((1, 2, 3, 3), 0.3)
    gradient[0, 0, 0] += 1e-6
    assert cam(torch.rand(1, 2, 3, 3), gradient).any()


def softmax_derivatives(
    logits: Callable[[Tensor], Tensor], a: Tensor, label: int
) -> tuple[Tensor, Tensor, Tensor]:
    """First to third derivative of a class's probability along each single entry of `a`."""
    units = torch.eye(a.numel(), dtype=a.dtype).view(-1, *a.shape)

    def along(step: Tensor, unit: Tensor) -> Tensor:
        return logits(a + step * unit).softmax(-1)[label]

    derivative, orders = along, []
    for _ in range(3):
        derivative = torch.func.grad(derivative)
        orders.append(
            torch.stack([derivative(a.new_zeros(()), unit) for unit in units]).view(a.shape)
        )
    return orders[0], orders[1], orders[2]


@pytest.mark.parametrize("grid", [(4,), (2, 3), (2, 2, 2)])
@pytest.mark.parametrize("label", [0, 2])
def test_softmax_plus_plus_is_eq_10_with_true_derivatives(
    grid: tuple[int, ...], label: int
) -> None:
    """On a piecewise-linear head, against autograd through the softmax, entry by entry."""
    a = torch.rand(1, 3, *grid).double()
    first_layer, last_layer = torch.randn(5, a.numel()).double(), torch.randn(4, 5).double()

    def logits(activation: Tensor) -> Tensor:
        return last_layer @ (first_layer @ activation.flatten()).relu()

    d1, d2, d3 = softmax_derivatives(logits, a, label)
    alpha = d2 / (2 * d2 + a.flatten(2).sum(2).view(1, 3, *[1] * len(grid)) * d3)
    weights = (alpha * d1.relu()).flatten(2).sum(2)
    expected = torch.einsum("bk,bk...->b...", weights, a).relu()

    jacobian = torch.func.jacrev(logits)(a)
    y = logits(a).softmax(0)
    moments = Moments(*(torch.einsum("k,k...->...", y, jacobian**p) for p in (1, 2, 3)))
    actual = grad_cam_plus_plus_softmax(a, jacobian[label], moments)
    assert expected.any()
    assert_close(actual * y[label], expected, rtol=1e-8, atol=1e-12)


def test_softmax_plus_plus_of_a_certain_class_is_zero() -> None:
    """With probability 1 no derivative is left, and the map is zero, not 0 / 0."""
    g = torch.randn(1, 2, 3, 3)
    assert not grad_cam_plus_plus_softmax(torch.rand(1, 2, 3, 3), g, Moments(g, g**2, g**3)).any()
