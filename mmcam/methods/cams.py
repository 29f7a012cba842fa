"""Class activation mapping methods, each a pure function at any rank.

`activation` and `gradient` are `[batch, channel, *grid]`; the map is `[batch, *grid]`, so the same
code serves pictures (h, w), clips (t, h, w) and tokens on a grid. Maps are not normalised. Sources:

- IJCV: Selvaraju et al., Grad-CAM, International Journal of Computer Vision 128, 2020.
- WACV: Chattopadhyay et al., Grad-CAM++, WACV 2018 (arXiv 1710.11063).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import MethodError

Grid = Float[Tensor, "batch channel *grid"]
GradientOrMean = Float[Tensor, "batch channel *#grid"]
"""A gradient, or its mean over the grid as a grid of one cell."""
Cam = Float[Tensor, "batch *grid"]


class Moments(NamedTuple):
    """Moments of the gradients of all classes' scores under the predicted probabilities.

    `mean` is sum_k Y^k g^k, `square` sum_k Y^k (g^k)^2, `cube` sum_k Y^k (g^k)^3, at each position
    of each channel. The sums over classes in WACV eq. 22-24 need only these three.
    """

    mean: Grid
    square: Grid
    cube: Grid


def weighted_sum(activation: Grid, weights: Float[Tensor, "batch channel"]) -> Cam:
    """The sum of the channels, weighted by `weights`."""
    return torch.einsum("bc,bc...->b...", weights, activation)


def grad_cam(activation: Grid, gradient: GradientOrMean) -> Cam:
    """ReLU of the sum of the channels, weighted by their mean gradient (IJCV eq. 1-2)."""
    return grad_cam_signed(activation, gradient).relu()


def grad_cam_signed(activation: Grid, gradient: GradientOrMean) -> Cam:
    """Grad-CAM without its ReLU (IJCV Appendix B.2.1)."""
    return weighted_sum(activation, gradient.flatten(2).mean(2))


def grad_cam_absolute(activation: Grid, gradient: Grid) -> Cam:
    """Grad-CAM of the absolute gradients (IJCV Appendix B, Table 3)."""
    return grad_cam(activation, gradient.abs())


def grad_cam_max(activation: Grid, gradient: Grid) -> Cam:
    """Grad-CAM with the largest instead of the mean gradient (IJCV Appendix B.2.2)."""
    return weighted_sum(activation, gradient.flatten(2).amax(2)).relu()


def grad_cam_framewise(activation: Grid, gradient: Grid) -> Cam:
    """Grad-CAM with separate weights for each time slice: gradients are pooled over space alone.

    For pictures, this is Grad-CAM.
    """
    space = tuple(range(2, gradient.ndim))[-2:]
    return (activation * gradient.mean(space, keepdim=True)).sum(1).relu()


def _plus_plus_weights(activation: Grid, gradient: Grid, rectify: bool) -> Tensor:
    # Eq. 19 divides g^2 by 2 g^2 + sum(A) g^3; cancelling g^2 leaves no epsilon to choose.
    total = activation.flatten(2).sum(2).clamp(min=0)
    total = total.reshape(*total.shape, *[1] * (gradient.ndim - 2))
    denominator = 2 + total * gradient
    alpha = torch.where(denominator != 0, 1 / denominator, 0)
    factor = gradient.relu() if rectify else gradient
    return torch.where(gradient != 0, alpha * factor, 0).flatten(2).sum(2)


def grad_cam_plus_plus(activation: Grid, gradient: Grid) -> Cam:
    """Grad-CAM++ of Y = exp(S): alpha = g^2 / (2 g^2 + sum(A) g^3) (WACV eq. 5, 19, 20).

    `gradient` is the gradient of the score S. The factor exp(S) of eq. 13 is constant over the map
    and is omitted, so large scores do not overflow. The derivation assumes positive activations; a
    negative sum over a channel is set to zero, because the denominator could vanish otherwise.
    """
    return weighted_sum(activation, _plus_plus_weights(activation, gradient, rectify=True)).relu()


def grad_cam_plus_plus_all(activation: Grid, gradient: Grid) -> Cam:
    """Grad-CAM++ without the positive-gradient rule (WACV eq. 29-30)."""
    return weighted_sum(activation, _plus_plus_weights(activation, gradient, rectify=False)).relu()


def grad_cam_plus_plus_softmax(
    activation: Grid, gradient: Grid, moments: Moments, sign: float = 1.0
) -> Cam:
    """Grad-CAM++ of Y = softmax(S) (WACV eq. 10, 21-24).

    The common factor Y^c of the three derivatives cancels in eq. 10 and scales all weights of eq. 5
    equally; it is omitted, so the map equals the paper's up to this positive factor.

    `gradient` is the gradient of the score S^c; `sign` -1 explains -Y instead (counterfactual).
    """
    mean, square, cube = moments
    variance = square - mean**2
    skew = cube - 3 * mean * square + 2 * mean**3
    first = gradient - mean
    second = first**2 - variance
    third = second * first - 2 * first * variance - skew
    total = activation.flatten(2).sum(2).reshape(*activation.shape[:2], *[1] * (first.ndim - 2))
    denominator = 2 * second + total * third
    alpha = torch.where(denominator != 0, second / denominator, 0)
    return weighted_sum(activation, (alpha * (sign * first).relu()).flatten(2).sum(2)).relu()


def hires_cam(activation: Grid, gradient: Grid) -> Cam:
    """ReLU of the sum over channels of gradient times activation, cell by cell."""
    return (gradient * activation).sum(1).relu()


def elementwise_grad_cam(activation: Grid, gradient: Grid) -> Cam:
    """The positive part of gradient times activation, summed over channels."""
    return (gradient * activation).relu().sum(1)


def layer_cam(activation: Grid, gradient: Grid) -> Cam:
    """ReLU of the sum over channels, each cell weighted by its own positive gradient."""
    return (gradient.relu() * activation).sum(1).relu()


def xgrad_cam(activation: Grid, gradient: Grid) -> Cam:
    """ReLU of the sum of the channels, weighted by their activation-weighted mean gradient.

    A channel whose activations sum to 0 has the weight 0.
    """
    total = activation.flatten(2).sum(2)
    weights = (gradient * activation).flatten(2).sum(2) / torch.where(total != 0, total, 1)
    return weighted_sum(activation, torch.where(total != 0, weights, 0)).relu()


def summed_activation(activation: Grid, gradient: GradientOrMean) -> Cam:
    """ReLU of the sum over the channels, a baseline that does not depend on the target."""
    return activation.sum(1).relu()


def eigen_cam(activation: Grid, gradient: GradientOrMean) -> Cam:
    """ReLU of the projection of the activations on their first right singular vector.

    The map does not depend on the score. The sign of a singular vector is arbitrary; it is chosen
    so that the projection's sum is positive.
    """
    matrix = activation.flatten(2).transpose(1, 2)
    _, _, right = torch.linalg.svd(matrix, full_matrices=False)
    projected: Tensor = (matrix @ right[:, 0, :, None])[..., 0]
    projected = projected * projected.sum(1, keepdim=True).sign()
    return projected.reshape(len(projected), *activation.shape[2:]).relu()


def eigen_grad_cam(activation: Grid, gradient: Grid) -> Cam:
    """Eigen-CAM of gradient times activation."""
    return eigen_cam(gradient * activation, gradient)


def cam(activation: Grid, gradient: Grid) -> Cam:
    """Class activation mapping: the channels weighted by the classifier's own weights.

    If global average pooling and one linear layer follow, the class's weight of a channel is the
    sum of the channel's gradient over the grid (IJCV section 3.1, eq. 11). The map has no ReLU.

    Raises:
        MethodError: the gradient varies over the grid, so this network has no such weights.
    """
    flat = gradient.flatten(2)
    spread = flat.amax(2) - flat.amin(2)
    if (spread > 1e-4 * flat.abs().amax((1, 2), keepdim=True)[..., 0]).any():
        raise MethodError(
            "method 'cam' needs global average pooling and one linear layer after the explained "
            "layer, but the gradient varies over the grid; use 'gradcam', which equals CAM where "
            "CAM exists"
        )
    return weighted_sum(activation, flat.sum(2))
