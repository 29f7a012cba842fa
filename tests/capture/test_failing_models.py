"""What a model raises becomes one line: the model, its input, the reason and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mmcam
from mmcam.errors import ModelError, ScoreError, model_errors

EXCEPTIONS = [
    *(ValueError, KeyError, AttributeError, TypeError, IndexError, AssertionError, OSError),
    *(NotImplementedError, RuntimeError, ZeroDivisionError, StopIteration, RecursionError),
]


class Net(nn.Module):
    """A network whose n-th and later runs fail."""

    def __init__(self, error: Exception, after: int = 0) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 3)
        self.error, self.after, self.runs = error, after, 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        x = self.trunk(x.flatten(2, -2))
        if self.runs > self.after:
            raise self.error
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


@pytest.mark.parametrize("kind", EXCEPTIONS)
@pytest.mark.parametrize("layer", [None, "trunk"])
@pytest.mark.parametrize("method", ["gradcam", "gradient", "occlusion"])
def test_one_line_for_any_exception(
    kind: type[Exception], layer: str | None, method: str, wrapped: Callable[..., Any]
) -> None:
    error = kind("no such thing\nsecond line")
    setup = wrapped(Net(error), layer)
    with pytest.raises(ModelError) as info:
        setup.cam(setup.sample(8, 9), method, 1)
    message = str(info.value)
    assert message.startswith("Net failed on an input of shape (1, 3, 8, 9) (")
    assert "no such thing" in message
    assert kind is RuntimeError or f"({kind.__name__}: " in message
    assert message.endswith(
        "; resize the input to the model's size (preprocess), or fix the model's forward"
    )
    assert kind is KeyError or "\n" not in message
    assert info.value.__cause__ is error


@pytest.mark.parametrize("after", range(1, 8))
def test_failure_of_any_run_is_one_line(after: int, wrapped: Callable[..., Any]) -> None:
    """The runs that follow the layers, those that check the score, and those that score again."""
    setup = wrapped(Net(ValueError("late"), after))
    with pytest.raises(ModelError, match="late"):
        setup.explain(setup.sample(8, 9), ["gradcam", "ablationcam", "occlusion"], 1)


def test_a_clips_first_run_fails_in_one_line(wrapped: Callable[..., Any]) -> None:
    setup = wrapped(Net(ValueError("no clips")), "trunk", frames=2)
    clip = setup.sample(2, 8, 9).pixels
    with pytest.raises(ModelError, match="no clips"):
        mmcam.explain(setup.adapter, clip, mmcam.Classes(top=1))


@pytest.mark.parametrize("layer", [None, "trunk"])
@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_a_failing_score_is_one_line(
    kind: type[Exception], layer: str | None, wrapped: Callable[..., Any]
) -> None:
    def score(output: Any) -> Tensor:
        raise kind("bad score")

    setup = wrapped(Net(ValueError(), 100), layer)
    with pytest.raises(ScoreError, match=r"score of 'mine' .*bad score.*; fix Target.score"):
        setup.cam(setup.sample(8, 9), "gradcam", mmcam.Target(label="mine", score=score))


@pytest.mark.parametrize("method", ["gradcam", "scorecam"])
@pytest.mark.parametrize("fails", [True, False])
def test_a_failing_probability_is_one_line(
    fails: bool, method: str, wrapped: Callable[..., Any]
) -> None:
    def log_prob(output: Any) -> Tensor:
        if fails:
            raise KeyError("no such class")
        return torch.zeros(())

    def score(output: Any) -> Tensor:
        return output[:, 0]

    setup = wrapped(Net(ValueError(), 100), "trunk")
    target = mmcam.Target(label="mine", score=score, log_prob=log_prob)
    with pytest.raises(ScoreError, match=r"log_prob of 'mine' .*; ?.*fix Target.log_prob"):
        setup.cam(setup.sample(8, 9), method, target)


def test_errors_of_mmcam_pass_unchanged() -> None:
    error = ScoreError("as it is")
    with pytest.raises(ScoreError) as info, model_errors("Net", (1, 3)):
        raise error
    assert info.value is error
    for stop in (KeyboardInterrupt, SystemExit):
        with pytest.raises(stop), model_errors("Net", (1, 3)):
            raise stop


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), "use a smaller batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "use a smaller batch"),
        (RuntimeError("Inference tensors cannot be saved for backward"), "inference_mode"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "resize the input"),
    ],
)
def test_the_remedy_fits_the_cause(error: Exception, remedy: str) -> None:
    with pytest.raises(ModelError, match=remedy), model_errors("Net", (1, 3)):
        raise error


def test_a_tensor_made_under_inference_mode_in_the_forward(wrapped: Callable[..., Any]) -> None:
    """Neither a parameter nor a buffer, so it cannot be replaced."""
    net = Net(ValueError(), 100)
    with torch.inference_mode():
        scale = torch.ones(3)
    setup = wrapped(nn.Sequential(net, Scaled(scale)), "0.trunk")
    with pytest.raises(ModelError, match=r"outside torch.inference_mode\(\)"):
        setup.cam(setup.sample(8, 9), "gradcam", 1)
    assert setup.cam(setup.sample(8, 9), "occlusion", 1).any()


class Scaled(nn.Module):
    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
