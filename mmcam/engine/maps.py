"""The maps of one recorded batch, computed from as few passes as possible."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcam.capture.pooled_gradient import off_grid_error
from mmcam.capture.recording import Recording
from mmcam.capture.relu_rules import has_relu_modules
from mmcam.engine.rescoring import Rescorer, extent_of
from mmcam.errors import LayerError, MethodError
from mmcam.grids import resize
from mmcam.methods import METHODS, Method
from mmcam.methods.cams import Moments
from mmcam.methods.plan import Plan, split
from mmcam.tasks.words import Word
from mmcam.types import Adapter, Extent, Inputs, Target, Trace


class MethodMap(NamedTuple):
    """The maps of all rows by one method at one layer, and where their cells lie.

    The rows of the contrasts come after those of the inputs.
    """

    method: str
    layer: str
    cams: Tensor
    extent: Extent


def with_contrasts(tensor: Tensor, pairs: Sequence[tuple[int, int]], axis: int = 0) -> Tensor:
    """Append the contrasts to the rows along `axis`: for each pair, the first minus the second."""
    if not pairs:
        return tensor
    first, second = (torch.tensor(rows, device=tensor.device) for rows in zip(*pairs, strict=True))
    difference = tensor.index_select(axis, first) - tensor.index_select(axis, second)
    return torch.cat([tensor, difference], axis)


@dataclass
class RecordedBatch:
    """One recorded forward of a batch, and its maps.

    Target slot i holds the i-th target of each row of the inputs. If a row has fewer targets than
    others, the maps in its remaining slots have no meaning. With `counterfactual`, `targets` are
    the negated targets. `word_embedding` is the layer that embeds the words of a question, if the
    words are explained; `word_scores` collects gradient times input at that layer, for each target
    slot. `grids` caches the activations as grids.
    """

    adapter: Adapter
    inputs: Inputs
    recording: Recording
    layers: list[str]
    plan: Plan
    targets: list[list[Target]]
    counterfactual: bool
    strategy: str
    word_embedding: str | None
    word_scores: list[Tensor] = field(default_factory=list)
    grids: dict[str, Tensor] = field(default_factory=dict)

    def maps(self, scores: Tensor, output: Any) -> Iterator[list[MethodMap]]:
        """Yield the maps of each target slot, in the order of the plan's methods, then of layers.

        Raises:
            LayerError: a layer has no grid, or its activation or gradient is NaN or infinite.
            MethodError: a method does not work on this model.
            ScoreError: the score does not depend on a layer, or not on any cell of its grid, or it
                fails in a re-scoring pass.
            ModelError: the backward pass or a re-scoring pass fails, or a method needs the logits
                of a model that has none.
        """
        for layer in self.layers:  # fail early on layers without a grid
            self._activation(layer)
        # The last pass of the last rule frees the graph. "relu" comes first, because most of its
        # passes end at a layer, while those of the other rules mostly continue to the pixels.
        rules = sorted(self.plan.rules | {"relu"}, reverse=True)
        iterators = {rule: self._gradients(scores, rule, rule == rules[-1]) for rule in rules}
        moments = self._moments(output) if self.plan.needs("moments") else {}
        attentions = self._attentions(output) if self.plan.needs("attention") else []
        for slot in range(len(scores)):
            gradients = {rule: next(iterator) for rule, iterator in iterators.items()}
            self._check_relus()
            if self.word_embedding:
                embedded = self.recording.activation(self.word_embedding)
                products = gradients["relu"][self.word_embedding] * embedded
                word_scores = products.detach().sum(-1)
                self.word_scores.append(with_contrasts(word_scores, self.inputs.contrasts))
            cams: dict[tuple[str, str], Tensor] = {}
            for name in self.plan.names:
                base, factor = split(name)
                for layer in self._layers_of(METHODS[base]):
                    if (base, layer) not in cams:
                        cams[base, layer] = (
                            attentions[slot]
                            if layer == "attention"
                            else self._map(base, layer, slot, gradients, moments)
                        )
                    if factor:
                        rule = METHODS[factor].rule
                        pixels = with_contrasts(gradients[rule]["pixels"], self.inputs.contrasts)
                        cams[name, layer] = self._product(pixels, cams[base, layer], layer)
            yield [
                # A product has the resolution of the input.
                MethodMap(
                    name,
                    layer,
                    cams[name, layer],
                    () if factor else extent_of(self.adapter, layer, self.inputs),
                )
                for name in self.plan.names
                for base, factor in [split(name)]
                for layer in self._layers_of(METHODS[base])
            ]

    def word_attributions(self) -> list[list[tuple[tuple[str, float], ...]]]:
        """For each target slot and row: the question's words with their contributions.

        The rows of the contrasts come after those of the inputs. The contribution is gradient times
        input at the words' embedding (Shrikumar et al. 2016), summed over the word; positive values
        are evidence for the target, or against it in a counterfactual.
        """
        words: list[Sequence[Word]] = list(self.inputs.rest["words"])
        words += [words[first] for first, _ in self.inputs.contrasts]
        return [
            [
                tuple((word.text, float(row[word.start : word.stop].sum())) for word in question)
                for row, question in zip(rows, words, strict=True)
            ]
            for rows in self.word_scores
        ]

    def _layers_of(self, method: Method) -> Sequence[str]:
        return self.layers if method.pseudo_layer is None else [method.pseudo_layer]

    def _attentions(self, output: Any) -> list[Tensor]:
        """For each target slot, the model's own attention, one map per row, contrasts last.

        Raises:
            MethodError: the model has no attention for a target.
        """
        attentions = []
        for slot in range(max(map(len, self.targets))):
            targets = [candidates[min(slot, len(candidates) - 1)] for candidates in self.targets]
            for target in targets:
                if target.attention is None:
                    raise MethodError(
                        f"{self.adapter.name} has no attention of its own for '{target.label}' "
                        f"({target.kind}); choose another method, or a word instead of a sentence"
                    )
            maps = [
                t.attention(output)[row] for row, t in enumerate(targets) if t.attention is not None
            ]
            attention = torch.stack(maps).detach().float()
            attentions.append(with_contrasts(attention, self.inputs.contrasts))
        return attentions

    def _gradients(self, scores: Tensor, rule: str, last: bool) -> Iterator[Mapping[str, Tensor]]:
        """For each target slot, the gradients under `rule` where a method or the words need them.

        The keys are names of layers, "pixels" and the word embedding, as far as they are needed.
        """
        needs = {method.needs for method in self.plan.methods if method.rule == rule}
        names = list(self.layers) if needs & {"gradient", "moments"} else []
        names += ["pixels"] if "pixels" in needs else []
        names += [self.word_embedding] if self.word_embedding and rule == "relu" else []
        if not names:
            return itertools.repeat({})
        return self.recording.gradients(scores, names, strategy=self.strategy, rule=rule, last=last)

    def _check_relus(self) -> None:
        """Check that the backward rules apply to a ReLU.

        If no ReLU follows the explained layer, a rule has no effect on its gradient. This is an
        error only for the gradient at the pixels, or if other activation functions follow the layer
        and the model has no ReLU module.

        Raises:
            MethodError: no ReLU ran in the forward pass, or some may be hidden.
        """
        at_pixels = "pixels" in self.recording.maps
        for name, rule in self.recording.relu_rules.items():
            if rule.is_fused:
                raise MethodError(
                    f"operations of {self.adapter.name} are fused (TorchScript, torch.compile), "
                    f"which hides ReLUs from the '{name}' rule; explain the module before it was "
                    "optimised, or use 'gradient' instead"
                )
            if rule.has_relus:
                continue
            if at_pixels or (
                rule.has_other_activations and not has_relu_modules(self.adapter.model)
            ):
                raise MethodError(
                    f"the '{name}' rule changes how ReLUs backpropagate, and {self.adapter.name} "
                    "ran none (GELU, SiLU and the like have no such rule); use 'gradient' instead"
                )

    def _map(
        self,
        method_name: str,
        layer: str,
        slot: int,
        gradients: Mapping[str, Mapping[str, Tensor]],
        moments: Mapping[str, Moments],
    ) -> Tensor:
        method = METHODS[method_name]
        # A surrounding autocast is for the recorded pass alone; maps need single precision or
        # wider. Re-scoring passes run without it too.
        with torch.autocast(self.inputs.pixels.device.type, enabled=False):
            return self._compute(method, layer, slot, gradients, moments)

    def _compute(
        self,
        method: Method,
        layer: str,
        slot: int,
        gradients: Mapping[str, Mapping[str, Tensor]],
        moments: Mapping[str, Moments],
    ) -> Tensor:
        if method.needs == "pixels":
            return with_contrasts(gradients[method.rule]["pixels"], self.inputs.contrasts)
        if method.needs == "rescore":
            return self._map_by_rescoring(method, layer, slot)
        trace = self._trace(layer, gradients[method.rule][layer])
        if method.needs == "moments":
            # In a counterfactual, the recorded gradient is that of the negated score; undo the
            # sign, since the moments are those of the plain scores.
            sign = -1.0 if self.counterfactual else 1.0
            gradient = sign * trace.gradient
            cam: Tensor = method.compute(trace.activation, gradient, moments[layer], sign)
            return cam
        cam = method.compute(trace.activation, trace.gradient)
        return cam

    def _trace(self, layer: str, gradient: Tensor) -> Trace:
        """Activation and gradient as grids, at least in single precision, contrasts last.

        Raises:
            LayerError: the layer has no grid, or NaN or infinite values.
            ScoreError: the score depends on the layer, but on no cell of its grid.
        """
        activation = self._activation(layer)
        pooled = layer in self.recording.pooled.to_grid
        if pooled:
            gradient_grid = gradient.reshape(*gradient.shape, *[1] * (activation.ndim - 2))
        else:
            gradient_grid = self._to_grid(layer, gradient)
        self._check_finite(layer, "gradients", gradient_grid)
        if not pooled and not gradient_grid.any() and gradient.any():
            raise off_grid_error(layer)
        if pairs := self.inputs.contrasts:  # both rows have the same activation up to rounding
            activation = torch.cat([activation, *(activation[a : a + 1] for a, _ in pairs)])
        return Trace(activation=activation, gradient=with_contrasts(gradient_grid, pairs))

    def _activation(self, layer: str) -> Tensor:
        """The layer's activation as a grid; it does not depend on the target.

        Raises:
            LayerError: the layer has no grid, or NaN or infinite values.
        """
        if layer not in self.grids:
            grid = self._to_grid(layer, self.recording.activation(layer))
            self._check_finite(layer, "activations", grid)
            self.grids[layer] = grid
        return self.grids[layer]

    def _check_finite(self, layer: str, kind: str, values: Tensor) -> None:
        if not values.isfinite().all():
            raise LayerError(
                f"layer '{layer}' of {self.adapter.name} has NaN or infinite {kind}; check the "
                "weights and the input's range, or use a wider dtype"
            )

    def _to_grid(self, layer: str, tensor: Tensor) -> Tensor:
        grid = self.adapter.grid(layer, tensor, self.inputs)
        return grid.to(torch.promote_types(grid.dtype, torch.float32))

    def _product(self, pixels: Tensor, cams: Tensor, layer: str) -> Tensor:
        """The pixel map times the upsampled map (Grad-CAM, IJCV 2020, section 3.2)."""
        with torch.autocast(pixels.device.type, enabled=False):
            upsampled = resize(
                cams, self.inputs.pixels.shape[2:], extent_of(self.adapter, layer, self.inputs)
            )
        return pixels * upsampled[:, None].to(pixels.dtype)

    def _map_by_rescoring(self, method: Method, layer: str, slot: int) -> Tensor:
        if self.inputs.contrasts and method.pseudo_layer is None:
            raise MethodError(
                f"{self.adapter.name} scores each answer separately, and re-scoring gives no "
                "weights for a difference of scores; explain the contrast by another method, or "
                "leave it out"
            )
        cams = []
        for row, targets in enumerate(self.targets):
            target = targets[min(slot, len(targets) - 1)]
            activation = (
                self.inputs.pixels[row].detach()
                if method.pseudo_layer
                else self._activation(layer)[row]
            )
            rescorer = Rescorer(adapter=self.adapter, inputs=self.inputs.row(row))
            rescoring = rescorer.rescoring(target, layer, len(activation))
            cams.append(method.compute(activation, rescoring))
        return with_contrasts(torch.stack(cams), self.inputs.contrasts)

    def _moments(self, output: Any) -> dict[str, Moments]:
        """Moments of all classes' gradients at each layer, weighted by the classes' probabilities.

        Raises:
            LayerError: a layer has no grid.
            ScoreError: the logits do not depend on a layer.
            ModelError: the model has no logits, or the backward pass fails.
        """
        logits = self.adapter.logits(output)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        probabilities = logits.detach().softmax(1)
        sums: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        for probability, gradients in zip(
            probabilities.T, self.recording.gradients(logits.T, self.layers), strict=True
        ):
            for layer, total in sums.items():
                g = self._to_grid(layer, gradients[layer])
                y = probability.reshape(-1, *[1] * (g.ndim - 1)).to(g.dtype)
                terms = [y * g, y * g**2, y * g**3]
                sums[layer] = [a + b for a, b in zip(total, terms, strict=True)] if total else terms
        return {layer: Moments(*terms) for layer, terms in sums.items()}
