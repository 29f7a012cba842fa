"""Run a model once, keep what chosen layers did, and ask for gradients of many scores.

The graph starts at the explained layer: a hook hands on a detached leaf, so that everything below
runs as in inference. The model is left as it was found: parameters and their gradients are never
written, modes, flags, hooks and random state are restored whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmcam.capture.layers import kind_of, tapped
from mmcam.capture.model_state import untouched
from mmcam.capture.pooled_gradient import PooledGradients, ToGrid
from mmcam.capture.relu_rules import ReluRule
from mmcam.errors import ScoreError
from mmcam.types import Target

GRADIENT_STRATEGIES = ("loop", "batched")
"""One backward per score, or one vector-Jacobian product for several scores."""

ROWS = 256
"""The most rows that the part above the explained layer runs at once, forward or backward."""

Block = Sequence[Tensor | None]
"""The gradients of some slots at several starts of the graph, each `[slot, row, *layout]`."""


@dataclass
class Recording:
    """What one forward left behind: a map for each layer, and the graph above the earliest."""

    maps: dict[str, Tensor] = field(default_factory=dict)
    pooled: PooledGradients = field(default_factory=lambda: PooledGradients({}))
    rectifiers: dict[str, ReluRule] = field(default_factory=dict)

    def tap(self, layer: str, tensor: Tensor) -> Tensor:
        """Keep a layer's map, make it the start of the graph if there is none yet."""
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_(True)
            torch.set_grad_enabled(True)
        self.maps[layer] = tensor
        self.pooled.note(layer, tensor)
        return tensor.clone()  # what comes next may work in place

    def activation(self, layer: str) -> Tensor:
        """The layer's map as it came out of the forward, one row a sample."""
        return self.maps[layer].detach()

    def scores(self, output: Any, targets: Sequence[Sequence[Target]]) -> Tensor:
        """One score for each target slot of each sample: `[slot, sample]`, in the graph.

        Samples with fewer targets than others have zeros in the slots left over.
        """
        slots = max(len(row) for row in targets)
        rows = []
        for slot in range(slots):
            asked = [row[slot] if slot < len(row) else None for row in targets]
            known: dict[int, Tensor] = {}
            for target in asked:
                if target is not None and id(target) not in known:
                    known[id(target)] = _checked(target, output, len(targets))
            zero = next(iter(known.values())).new_zeros(())
            rows.append(
                torch.stack([zero if t is None else known[id(t)][i] for i, t in enumerate(asked)])
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
        """For each row of `scores` `[slot, sample]`: its gradient at each layer, one row a sample.

        Samples of a batch must not depend on each other. Gradients come one slot at a time, so
        that no more than `chunk` of them are in memory at once. At a layer that was captured with a
        fold it is the mean gradient `[row, channel]`.

        Args:
            scores: as `Recording.scores` gives them, or any scalars of this graph.
            layers: all that were captured when None.
            strategy: "loop", one backward a slot; "batched", one vector-Jacobian product for
                `chunk` slots.
            rule: the backward rule of ReLUs: "relu", the ordinary one, or a key of `guided.RULES`.
            chunk: how many slots a batched product takes at once; when None 16, or fewer, so that
                there are no more than `ROWS` rows.
            last: nothing else is asked of the graph; the last backward frees it as it goes.

        Raises:
            ScoreError: the scores do not depend on a layer.
        """
        names = list(self.maps if layers is None else layers)
        readers = self.pooled.readers
        starts = [self.maps[name] for name in names] + [reader.output for reader in readers]
        if not scores.requires_grad:
            raise ScoreError(
                f"the score does not depend on layer '{names[0]}' (nothing differentiable leads "
                "from one to the other); explain a layer before it, or check the target"
            )
        if rule != "relu":
            self.rectifiers[rule] = ReluRule(scores, rule)
        chunk = chunk or max(1, min(16, ROWS // scores.shape[1]))
        steps = _backward(scores.sum(1), starts, strategy, chunk, last)
        while True:
            # The rule holds for one step alone: streams of several rules may run side by side.
            with nullcontext() if rule == "relu" else self.rectifiers[rule].ruled():
                block = next(steps, None)
            if block is None:
                return
            found = {}
            for name, whole in zip(names, block, strict=False):
                if name in self.pooled.to_grid:
                    whole = self.pooled.mean(name, whole, block[len(names) :])
                if whole is None:
                    raise ScoreError(
                        f"the score does not depend on layer '{name}'; explain a layer that leads "
                        "to it"
                    )
                found[name] = whole
            for slot in range(len(found[names[0]])):
                yield {name: whole[slot] for name, whole in found.items()}


def _checked(target: Target, output: Any, rows: int) -> Tensor:
    """The target's score, one number a row.

    Raises:
        ScoreError: it is something else.
    """
    try:
        score = target.score(output)
    except (IndexError, AttributeError, TypeError) as error:
        raise ScoreError(
            f"the score of '{target.label}' cannot be taken from the model's output, "
            f"{kind_of(output)} ({error}); mend Target.score"
        ) from error
    if not isinstance(score, Tensor) or score.shape != (rows,):
        raise ScoreError(
            f"the score of '{target.label}' is {kind_of(score)}; it must be a tensor of shape "
            f"({rows},), one number for each sample: mend Target.score"
        )
    return score


def _backward(
    scores: Tensor, starts: Sequence[Tensor], strategy: str, chunk: int, last: bool
) -> Iterator[Block]:
    """The gradients of each of `scores` `[slot]` at `starts`, some slots at once."""
    slots = len(scores)
    if strategy == "batched" and slots > 1:
        units = torch.eye(slots, dtype=scores.dtype, device=scores.device)
        for first, some in zip(range(0, slots, chunk), units.split(chunk), strict=True):
            keep = not last or first + chunk < slots
            yield torch.autograd.grad(
                scores, starts, some, is_grads_batched=True, retain_graph=keep, allow_unused=True
            )
    else:
        for slot, score in enumerate(scores, 1):
            keep = not last or slot < slots
            one = torch.autograd.grad(score, starts, retain_graph=keep, allow_unused=True)
            yield [g if g is None else g[None] for g in one]


@contextmanager
def capture(
    model: nn.Module,
    layers: Sequence[str],
    *,
    pixels: Tensor | None = None,
    to_grid: Mapping[str, ToGrid] | None = None,
) -> Iterator[tuple[Recording, Callable[[], None]]]:
    """Inside, one forward of `model` is recorded at `layers`; gradients are asked for inside too.

    Args:
        model: any module; it is left as it was found.
        layers: names as `resolve` gives them.
        pixels: the input, where gradients are wanted at the pixels themselves; it becomes the
            start of the graph, recorded as the layer "pixels".
        to_grid: for layers of which the gradient's mean over the grid is enough, how to make a grid
            of what they give.

    Yields:
        The recording, and the check to call once the forward is done.
    """
    recording = Recording(pooled=PooledGradients(to_grid or {}))
    watching = recording.pooled.watched(model) if to_grid else nullcontext()
    with untouched(model), tapped(model, layers, recording.tap) as check, watching:
        if pixels is not None:
            recording.maps["pixels"] = pixels.requires_grad_(True)
        yield recording, check
