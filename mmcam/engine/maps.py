"""One recorded forward of a batch, and the maps that come of it, from as few passes as can be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmcam.capture.pooled_gradient import off_grid_error
from mmcam.capture.recording import Recording
from mmcam.capture.relu_rules import has_relus
from mmcam.engine.rescoring import Rescorer
from mmcam.errors import LayerError, MethodError
from mmcam.grids import resize
from mmcam.methods import METHODS, Method
from mmcam.methods.cams import Moments
from mmcam.methods.plan import Plan, split
from mmcam.tasks.words import Word
from mmcam.types import Adapter, Inputs, Target, Trace

Made = tuple[str, str, Tensor]
"""A method's name, a layer, and the maps of all samples there."""


def with_contrasts(tensor: Tensor, pairs: Sequence[tuple[int, int]], axis: int = 0) -> Tensor:
    """Rows with their contrasts behind them: for each pair, the first row minus the second."""
    if not pairs:
        return tensor
    first, second = (torch.tensor(rows, device=tensor.device) for rows in zip(*pairs, strict=True))
    difference = tensor.index_select(axis, first) - tensor.index_select(axis, second)
    return torch.cat([tensor, difference], axis)


@dataclass
class Batch:
    """One recorded forward, and the maps that come of it."""

    adapter: Adapter
    inputs: Inputs
    recording: Recording
    layers: list[str]
    plan: Plan
    targets: list[list[Target]]
    counterfactual: bool
    strategy: str
    words: str | None
    parts: list[Tensor] = field(default_factory=list)
    folded: dict[str, Tensor] = field(default_factory=dict)

    def maps(self, scores: Tensor, output: Any) -> Iterator[list[Made]]:
        """For each target slot: (method, layer, map of every sample), in the plan's order."""
        for layer in self.layers:  # one that has no grid is told of before anything is asked of it
            self._activation(layer)
        rules = sorted(self.plan.rules | {"relu"}, reverse=True)  # plain first: they free least
        streams = {rule: self._gradients(scores, rule, rule == rules[-1]) for rule in rules}
        moments = self._moments(output) if self.plan.needs("moments") else {}
        attentions = self._attentions(output) if self.plan.needs("attention") else []
        for slot in range(len(scores)):
            gradients = {rule: next(stream) for rule, stream in streams.items()}
            self._check_relus()
            if self.words:
                embedded = self.recording.activation(self.words)
                part = (gradients["relu"][self.words] * embedded).detach().sum(-1)
                self.parts.append(with_contrasts(part, self.inputs.contrasts))
            made: dict[tuple[str, str], Tensor] = {}
            for name in self.plan.names:
                base, factor = split(name)
                for layer in self._layers_of(METHODS[base]):
                    if (base, layer) not in made:
                        made[base, layer] = (
                            attentions[slot]
                            if layer == "attention"
                            else self._map(base, layer, slot, gradients, moments)
                        )
                    if factor:
                        rule = METHODS[factor].rule
                        pixels = with_contrasts(gradients[rule]["pixels"], self.inputs.contrasts)
                        made[name, layer] = self._product(pixels, made[base, layer])
            wanted = set(self.plan.names)
            yield [(name, layer, cam) for (name, layer), cam in made.items() if name in wanted]

    def read(self) -> list[list[tuple[tuple[str, float], ...]]]:
        """For each target slot and sample: the words of the question with their part in the score.

        Gradient times input at the words' embedding (Shrikumar et al. 2016), positive for what
        speaks for the target.
        """
        words: list[Sequence[Word]] = list(self.inputs.rest["words"])
        words += [words[first] for first, _ in self.inputs.contrasts]
        return [
            [
                tuple((word.text, float(row[word.start : word.stop].sum())) for word in asked)
                for row, asked in zip(part, words, strict=True)
            ]
            for part in self.parts
        ]

    def _layers_of(self, method: Method) -> Sequence[str]:
        return self.layers if method.place is None else [method.place]

    def _attentions(self, output: Any) -> list[Tensor]:
        """For each target slot the model's own attention, a map for every sample.

        Raises:
            MethodError: the model has none for some target.
        """
        made = []
        for slot in range(max(map(len, self.targets))):
            asked = [row[min(slot, len(row) - 1)] for row in self.targets]
            for target in asked:
                if target.attention is None:
                    raise MethodError(
                        f"{self.adapter.name} has no attention of its own for '{target.label}' "
                        f"({target.kind}); choose another method, or a word instead of a sentence"
                    )
            maps = [t.attention(output)[i] for i, t in enumerate(asked) if t.attention is not None]
            looks = torch.stack(maps).detach().float()
            made.append(with_contrasts(looks, self.inputs.contrasts))
        return made

    def _gradients(self, scores: Tensor, rule: str, last: bool) -> Iterator[Mapping[str, Tensor]]:
        """Gradients under `rule` at the layers that some method wants under it."""
        parts = [part for part in self.plan.parts if part.rule == rule]
        needs = {part.needs for part in parts}
        names = list(self.layers) if needs & {"gradient", "moments"} else []
        names += ["pixels"] if "pixels" in needs else []
        names += [self.words] if self.words and rule == "relu" else []
        if not names:
            return itertools.repeat({})
        return self.recording.gradients(scores, names, strategy=self.strategy, rule=rule, last=last)

    def _check_relus(self) -> None:
        """That rules for ReLUs found some.

        At a layer with none behind it they change nothing, as long as the model has any.

        Raises:
            MethodError: the model has none.
        """
        at_pixels = "pixels" in self.recording.maps
        for rule, rectifiers in self.recording.rectifiers.items():
            if rectifiers.found:
                continue
            if at_pixels or (rectifiers.others and not has_relus(self.adapter.model)):
                raise MethodError(
                    f"the '{rule}' rule changes how ReLUs backpropagate, and {self.adapter.name} "
                    "ran none (GELU, SiLU and the like have no such rule); use 'gradient' instead"
                )

    def _map(
        self,
        name: str,
        layer: str,
        slot: int,
        gradients: Mapping[str, Mapping[str, Tensor]],
        moments: Mapping[str, Moments],
    ) -> Tensor:
        method = METHODS[name]
        if method.needs == "pixels":
            return with_contrasts(gradients[method.rule]["pixels"].detach(), self.inputs.contrasts)
        if method.needs == "rescore":
            return self._rescored(method, layer, slot)
        trace = self._trace(layer, gradients[method.rule][layer])
        if method.needs == "moments":
            # The gradient is that of the negated score; the moments are those of the scores.
            sign = -1.0 if self.counterfactual else 1.0
            signed = sign * trace.gradient
            cam: Tensor = method.compute(trace.activation, signed, moments[layer], sign)
            return cam
        cam = method.compute(trace.activation, trace.gradient)
        return cam

    def _trace(self, layer: str, gradient: Tensor) -> Trace:
        """Activation and gradient as grids, at least in single precision.

        Raises:
            LayerError: values that are not numbers.
            ScoreError: the score reaches the layer, but no cell of its grid.
        """
        activation = self._activation(layer)
        pooled = layer in self.recording.pooled.to_grid
        if pooled:
            folded = gradient.reshape(*gradient.shape, *[1] * (activation.ndim - 2))
        else:
            folded = self._fold(layer, gradient)
        self._finite(layer, "gradients", folded)
        if not pooled and not folded.any() and gradient.any():
            raise off_grid_error(layer)
        if pairs := self.inputs.contrasts:  # both rows of one have one activation up to rounding
            activation = torch.cat([activation, *(activation[a : a + 1] for a, _ in pairs)])
        return Trace(activation=activation, gradient=with_contrasts(folded, pairs))

    def _activation(self, layer: str) -> Tensor:
        """The layer's map as a grid, the same for all targets."""
        if layer not in self.folded:
            whole = self._fold(layer, self.recording.activation(layer))
            self.folded[layer] = self._finite(layer, "activations", whole)
        return self.folded[layer]

    def _finite(self, layer: str, what: str, values: Tensor) -> Tensor:
        if not values.isfinite().all():
            raise LayerError(
                f"layer '{layer}' of {self.adapter.name} has NaN or infinite {what}; check the "
                "weights and the input's range, or run in a wider number type"
            )
        return values

    def _fold(self, layer: str, tensor: Tensor) -> Tensor:
        folded = self.adapter.grid(layer, tensor.detach(), self.inputs)
        return folded.to(torch.promote_types(folded.dtype, torch.float32))

    def _product(self, pixels: Tensor, cams: Tensor) -> Tensor:
        """The pixel map times the upsampled map (IJCV section 3.2)."""
        space = self.inputs.pixels.shape[2:]
        return pixels.detach() * resize(cams, space)[:, None].to(pixels.dtype)

    def _rescored(self, method: Method, layer: str, slot: int) -> Tensor:
        if self.inputs.contrasts and method.place is None:
            raise MethodError(
                f"{self.adapter.name} scores each answer by itself, and weights by re-scoring are "
                "not those of a difference; explain the contrast by another method, or leave it out"
            )
        cams = []
        for row, targets in enumerate(self.targets):
            target = targets[min(slot, len(targets) - 1)]
            activation = (
                self.inputs.pixels[row].detach() if method.place else self._activation(layer)[row]
            )
            rescorer = Rescorer(adapter=self.adapter, inputs=self.inputs.row(row))
            rescoring = rescorer.rescoring(target, layer, len(activation))
            cams.append(method.compute(activation, rescoring))
        return with_contrasts(torch.stack(cams), self.inputs.contrasts)

    def _moments(self, output: Any) -> dict[str, Moments]:
        """Moments of all classes' gradients under their probabilities, class by class."""
        logits = self.adapter.logits(output)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        shares = logits.detach().softmax(1)
        sums: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        for share, gradients in zip(
            shares.T, self.recording.gradients(logits.T, self.layers), strict=True
        ):
            for layer, sum_ in sums.items():
                g = self._fold(layer, gradients[layer])
                share_ = share.reshape(-1, *[1] * (g.ndim - 1)).to(g.dtype)
                powers = [share_ * g, share_ * g**2, share_ * g**3]
                sums[layer] = [a + b for a, b in zip(sum_, powers, strict=True)] if sum_ else powers
        return {layer: Moments(*powers) for layer, powers in sums.items()}
