"""Run a model once, record the activations of chosen layers, and compute gradients of many scores.

The graph starts at the explained layer: a hook replaces the layer's output by a detached leaf, so
that all earlier layers run as in inference. The model is left as it was found: parameters and their
gradients are never written; modes, flags, hooks and random state are restored whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmcam.capture.layers import describe_output, quantised, tapped
from mmcam.capture.model_state import untouched
from mmcam.capture.pooled_gradient import PooledGradients, ToGrid
from mmcam.capture.relu_rules import ReluRule
from mmcam.errors import ModelError, ScoreError, raised_as, reason_of
from mmcam.types import Score, Target

GRADIENT_STRATEGIES = ("loop", "batched", "auto")
"""One backward pass per score; one vector-Jacobian product for several scores; or the second, and
the first where an operation of the model does not support it."""

ROWS = 256
"""The maximum number of rows (slots x samples) in one batched backward pass."""

Block = Sequence[Tensor | None]
"""For each start of the graph, the gradients of several slots `[slot, row, *layout]`."""


@dataclass
class Recording:
    """The result of one forward pass: the layers' maps, and the graph from the earliest map on.

    A layer's map is its activation, as `capture.layers.map_tensor` finds it in the output.
    `quantised` is the name of a layer that computes with integers, if any. If the recording is
    `differentiable`, activations and gradients stay in the graph.
    """

    maps: dict[str, Tensor] = field(default_factory=dict)
    pooled: PooledGradients = field(default_factory=lambda: PooledGradients({}))
    relu_rules: dict[str, ReluRule] = field(default_factory=dict)
    quantised: str | None = None
    differentiable: bool = False

    def tap(self, layer: str, tensor: Tensor) -> Tensor:
        """Record a layer's map and return a copy; if it is not in the graph, the graph starts here.

        Raises:
            LayerError: as `PooledGradients.add_map`.
        """
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_(True)
            torch.set_grad_enabled(True)
        self.maps[layer] = tensor
        self.pooled.add_map(layer, tensor)
        return tensor.clone()  # the next layer may work in place

    def activation(self, layer: str) -> Tensor:
        """The layer's map as recorded in the forward pass, one row per sample."""
        return self.maps[layer] if self.differentiable else self.maps[layer].detach()

    def scores(self, output: Any, targets: Sequence[Sequence[Target]]) -> Tensor:
        """One score for each target slot of each sample: `[slot, sample]`, in the graph.

        Slot i holds the i-th target of each sample. If a sample has fewer targets than others, its
        remaining slots are zero.

        Raises:
            ScoreError: a score fails, or is not one number for each sample.
        """
        slots = max(len(row) for row in targets)
        rows = []
        for slot in range(slots):
            slot_targets = [row[slot] if slot < len(row) else None for row in targets]
            scores: dict[int, Tensor] = {}
            for target in slot_targets:
                if target is not None and id(target) not in scores:
                    scores[id(target)] = score_of(target, output, len(targets))
            zero = next(iter(scores.values())).new_zeros(())
            rows.append(
                torch.stack(
                    [zero if t is None else scores[id(t)][i] for i, t in enumerate(slot_targets)]
                )
            )
        return torch.stack(rows)

    def gradients(
        self,
        scores: Tensor,
        layers: Sequence[str] | None = None,
        *,
        strategy: str = "loop",
        rule: str = "relu",
        chunk: int | None = None,
        last: bool = False,
    ) -> Iterator[dict[str, Tensor]]:
        """For each row of `scores` `[slot, sample]`: the gradients at the layers, a row per sample.

        Samples of a batch must not depend on each other. The iterator yields one slot at a time, so
        that the gradients of at most `chunk` slots are in memory. For a layer captured with
        `to_grid`, the gradient is its mean over the grid, `[row, channel]`.

        Args:
            scores: the result of `Recording.scores`, or any scalars of this graph.
            layers: names of recorded layers; all of them when None.
            strategy: "loop", one backward pass per slot; "batched", one vector-Jacobian product per
                `chunk` slots; "auto", "batched" if the model's operations support it.
            rule: the backward rule of ReLUs: "relu", the ordinary one, or a key of
                `capture.relu_rules.RULES`.
            chunk: the number of slots per batched product; when None at most 16, and at most `ROWS`
                rows.
            last: whether the graph is not used again; then the last backward pass frees it.

        Raises:
            ScoreError: the scores do not depend on a layer, or, if its gradient is a mean, on no
                cell of its grid.
            ModelError: the backward pass fails; the cause is its own exception.
        """
        names = list(self.maps if layers is None else layers)
        readers = self.pooled.readers
        starts = [self.maps[name] for name in names] + [reader.output for reader in readers]
        if not scores.requires_grad:
            raise self._unreached(names[0])
        if rule != "relu":
            self.relu_rules[rule] = ReluRule(scores, rule)
        chunk = chunk or max(1, min(16, ROWS // scores.shape[1]))
        blocks = _backward(scores.sum(1), starts, strategy, chunk, last, self.differentiable)
        while True:
            # The rule is active for one block only: iterators of several rules may alternate.
            with nullcontext() if rule == "relu" else self.relu_rules[rule].active():
                block = _next_block(blocks)
            if block is None:
                return
            gradients = {}
            for name, gradient in zip(names, block, strict=False):
                if name in self.pooled.to_grid:
                    with torch.autocast(scores.device.type, enabled=False):
                        gradient = self.pooled.mean(name, gradient, block[len(names) :])
                if gradient is None:
                    raise self._unreached(name)
                gradients[name] = gradient
            for slot in range(len(gradients[names[0]])):
                yield {name: gradient[slot] for name, gradient in gradients.items()}

    def _unreached(self, layer: str) -> ScoreError:
        """The error for a layer that no gradient of the score reaches."""
        if self.quantised is not None:
            return ScoreError(
                f"no gradient of the score reaches layer '{layer}', because layer "
                f"'{self.quantised}' computes with integers; use occlusion, or, at a layer of "
                "floats, scorecam or ablationcam"
            )
        return ScoreError(
            f"the score does not depend on layer '{layer}' (no differentiable path leads from the "
            "layer to the score); explain an earlier layer, or check the target"
        )


def score_of(target: Target, output: Any, rows: int) -> Tensor:
    """The target's score, one number per row.

    Raises:
        ScoreError: the score fails or has another type or shape.
    """
    return _values_of(target, target.score, "score", output, rows)


def log_prob_of(target: Target, output: Any, rows: int) -> Tensor | None:
    """The logarithm of the target's probability, one number per row; None without a probability.

    Raises:
        ScoreError: `Target.log_prob` fails or returns another type or shape.
    """
    if target.log_prob is None:
        return None
    return _values_of(target, target.log_prob, "log_prob", output, rows)


def _values_of(target: Target, function: Score, name: str, output: Any, rows: int) -> Tensor:
    """One number per row by a function of the target, which may be the user's own.

    Raises:
        ScoreError: the function fails or returns another type or shape.
    """

    def convert(error: Exception) -> ScoreError:
        return ScoreError(
            f"the {name} of '{target.label}' cannot be taken from the model's output, "
            f"{describe_output(output)} ({type(error).__name__}: {reason_of(error)}); fix "
            f"Target.{name}"
        )

    with raised_as(convert):
        values = function(output)
    if not isinstance(values, Tensor) or values.shape != (rows,):
        raise ScoreError(
            f"the {name} of '{target.label}' is {describe_output(values)}; it must be a tensor of "
            f"shape ({rows},), one number for each sample: fix Target.{name}"
        )
    return values


def _backward(
    scores: Tensor,
    starts: Sequence[Tensor],
    strategy: str,
    chunk: int,
    last: bool,
    differentiable: bool,
) -> Iterator[Block]:
    """The gradients of `scores` `[slot]` at `starts`, in blocks of one or more slots.

    With `differentiable`, they are in the graph themselves, in blocks of one slot.
    """
    slots = len(scores)
    done = 0
    if strategy != "loop" and slots > 1 and not differentiable:
        identity = torch.eye(slots, dtype=scores.dtype, device=scores.device)
        for rows in identity.split(chunk):
            # An operation without a batched backward pass is found after others have run.
            retain = strategy == "auto" or not last or done + len(rows) < slots
            try:
                block = torch.autograd.grad(
                    scores,
                    starts,
                    rows,
                    is_grads_batched=True,
                    retain_graph=retain,
                    allow_unused=True,
                )
            except RuntimeError:
                if strategy == "batched":
                    raise
                break
            yield block
            done += len(rows)
    for slot in range(done, slots):
        gradients = torch.autograd.grad(
            scores[slot],
            starts,
            retain_graph=differentiable or not last or slot + 1 < slots,
            create_graph=differentiable,
            allow_unused=True,
        )
        yield [g if g is None else g[None] for g in gradients]


def _next_block(blocks: Iterator[Block]) -> Block | None:
    """The next block of gradients; None at the end.

    Raises:
        ModelError: the backward pass fails.
    """
    try:
        return next(blocks, None)
    except Exception as error:
        raise ModelError(
            f"the backward pass failed ({type(error).__name__}: {reason_of(error)}); use a method "
            "without gradients (scorecam, ablationcam, occlusion), or, if memory ran out, another "
            "device"
        ) from error


@contextmanager
def capture(
    model: nn.Module,
    layers: Sequence[str],
    *,
    pixels: Tensor | None = None,
    to_grid: Mapping[str, ToGrid] | None = None,
    differentiable: bool = False,
) -> Iterator[tuple[Recording, Callable[[], None]]]:
    """In this context, record one forward pass of `model` at `layers`, and compute gradients.

    Args:
        model: any module; it is left as it was found.
        layers: names as `resolve` returns them.
        pixels: the input, if gradients at the pixels themselves are needed; it becomes the start of
            the graph, recorded as the layer "pixels".
        to_grid: for layers that need only the mean gradient over the grid, the function from the
            layer's output to a grid; not together with `differentiable`.
        differentiable: activations and gradients stay in the graph, which reaches back to the
            parameters that require gradients.

    Yields:
        The recording, and a function to call after the forward pass (see `tapped`).

    Raises:
        LayerError: as `tapped`, or a layer of `to_grid` has no grid.
        ModelError: as `model_state.untouched`.
    """
    recording = Recording(
        pooled=PooledGradients(to_grid or {}),
        quantised=quantised(model),
        differentiable=differentiable,
    )
    watching = recording.pooled.watch_linear_layers(model) if to_grid else nullcontext()
    with (
        untouched(model, frozen=not differentiable),
        tapped(model, layers, recording.tap) as check,
        watching,
    ):
        if pixels is not None:
            recording.maps["pixels"] = pixels.requires_grad_(True)
        yield recording, check
