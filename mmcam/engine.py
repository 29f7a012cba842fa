"""A batch of samples through a model, and every map asked for, from as few passes as can be.

One forward serves all targets, layers and methods that take gradients; guided maps ask the same
graph again with another backward rule. Only re-scoring methods run the model further.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcam.capture import Recording, capture, resolve, untouched
from mmcam.errors import LayerError, MethodError, ModelError, ScoreError, nearest
from mmcam.explanation import Explanation
from mmcam.grids import resize
from mmcam.guided import PIXELS
from mmcam.methods import CAMS, Moments
from mmcam.perturb import RESCORING, Rescorer
from mmcam.probe import default_layer
from mmcam.tasks.words import Word
from mmcam.types import Adapter, Inputs, Method, Sample, Target, Trace

ATTENTION: dict[str, Method] = {
    "attention": Method(
        compute=lambda attention: attention,
        summary="where the model's own attention lay as it said the target, to compare with",
        source="Xu et al. 2015, section 4.2",
        needs="attention",
        target=False,
    )
}

METHODS: dict[str, Method] = CAMS | PIXELS | RESCORING | ATTENTION
"""Every method by name. `guided-NAME` and `deconv-NAME` multiply any map NAME of the first and
third kind with a pixel-space map."""

PRODUCTS = ("guided", "deconv")

ROWS = 256
"""The most rows that the part above the explained layer runs at once in the fan-out way."""

Made = tuple[str, str, Tensor]
"""A method's name, a layer, and the maps of all samples there."""


@dataclass(frozen=True)
class Plan:
    """Which maps to make: names of methods, each a map and maybe the pixel map it is multiplied by.

    Raises (by `Plan.of`):
        MethodError: an unknown method.
    """

    names: tuple[str, ...]

    @staticmethod
    def of(methods: Sequence[str], guided: bool) -> Plan:
        """The plan for these methods; with `guided`, guided products of all maps among them too."""
        names = list(dict.fromkeys(methods))
        for name in names:
            split(name)
        if guided:
            names += [f"guided-{name}" for name in names if name in CAMS or name in RESCORING]
        return Plan(tuple(dict.fromkeys(names)))

    @property
    def parts(self) -> list[Method]:
        """Every row of `METHODS` that the plan needs."""
        return [METHODS[part] for name in self.names for part in split(name) if part]

    def needs(self, kind: str) -> bool:
        """Whether any part of the plan needs `kind`, as `Method.needs` has it."""
        return any(part.needs == kind for part in self.parts)

    @property
    def has_layers(self) -> bool:
        """Whether any map is one of a layer that is named; attention and pixels need none."""
        return any(place(part) is None for part in self.parts)

    def check_counterfactual(self) -> None:
        """That every map depends on what is asked, so that asking the opposite makes sense.

        Raises:
            MethodError: one does not.
        """
        for name in self.names:
            if not METHODS[split(name)[0]].target:
                raise MethodError(
                    f"method '{name}' does not look at the score, so it has no counterfactual; "
                    "choose another method (mmcam list methods)"
                )

    @property
    def rules(self) -> set[str]:
        """The backward rules that the plan takes gradients under."""
        return {part.rule for part in self.parts}


def place(method: Method) -> str | None:
    """What stands for the layer where a method looks at none that can be named."""
    if method is RESCORING["occlusion"]:
        return "input"
    return method.needs if method.needs in ("pixels", "attention") else None


def split(name: str) -> tuple[str, str | None]:
    """A method's map, and the pixel-space map it is multiplied by, if it is a product.

    Raises:
        MethodError: there is no such method.
    """
    if name in METHODS:
        return name, None
    factor, _, base = name.partition("-")
    if factor in PRODUCTS and base in (CAMS | RESCORING):
        return base, factor
    known = [*METHODS, *(f"{factor}-{base}" for factor in PRODUCTS for base in CAMS)]
    raise MethodError(
        f"there is no method '{name}'; nearest: {nearest(name, known)}. "
        "List them: mmcam list methods"
    )


class Found(NamedTuple):
    """What came of one sample: its maps, and what was said of it, where something was."""

    explanations: list[Explanation]
    text: Mapping[str, Any] | None


def explain_samples(
    adapter: Adapter,
    samples: Sequence[Sample],
    task: Any,
    plan: Plan,
    layers: Sequence[str] | None = None,
    *,
    counterfactual: bool = False,
) -> list[Found]:
    """For each sample its explanations: targets in the adapter's order, each by method and layer.

    Args:
        adapter: the model.
        samples: one batch; their shapes after preprocessing must agree.
        task: what is asked, as the adapter understands it.
        plan: which maps to make.
        layers: patterns as `capture.resolve` takes them; the adapter's default when None.
        counterfactual: explain what speaks against each score (IJCV eq. 12).

    Raises:
        MmcamError: of any kind, with the value, the reason and the remedy.
    """
    if counterfactual:
        plan.check_counterfactual()
    with untouched(adapter.model):  # a caption may have to be generated
        inputs = adapter.prepare(samples, task)
    if not plan.has_layers:
        layers = []
    elif layers is None:
        adapter.layers = layers = adapter.layers or [default_layer(adapter, inputs)]
    named = resolve(adapter.model, layers, adapter.name) if layers else []
    _check_tiles(adapter, plan, inputs)
    pixels = inputs.pixels if plan.needs("pixels") else None
    if pixels is not None or any(layer != adapter.encoder for layer in named):
        inputs = replace(inputs, seen=None)  # the graph begins below the encoder's output
    inputs = replace(inputs, attend=plan.needs("attention"))
    way = _way(adapter, named, inputs, pixels)
    words = adapter.words if "words" in inputs.rest else None
    with capture(
        adapter.model,
        [*named, words] if words else named,
        pixels=pixels,
        relus=bool(plan.rules - {"relu"}),
        copies=inputs.asked if way == "fan-out" else 1,
    ) as (recording, check):
        # A model may work on its input in place; the leaf must stay as it is.
        own = plan.needs("pixels") or plan.needs("rescore")
        output = _forward(adapter, inputs.copied() if own else inputs)
        check()
        targets = _targets(adapter, recording.block(output, 0, len(samples)), task, len(samples))
        asked = [[t.negated() if counterfactual else t for t in row] for row in targets]
        scores = recording.scores(output, asked)
        batch = _Batch(adapter, inputs, recording, named, plan, asked, counterfactual, way, words)
        slots = list(batch.maps(scores, output))
        read = batch.read(inputs.rest["words"]) if words else None
        output = recording.block(output, 0, len(samples))
        scores = scores.detach() * (-1 if counterfactual else 1)
    _check_finite(adapter, scores, slots)
    probabilities = _probabilities(output, targets)
    with torch.no_grad():
        texts = adapter.text(output, inputs)
    explanations = [
        [
            Explanation(
                target=target,
                cam=cams[row],
                score=float(scores[slot, row]),
                probability=probabilities[row][slot],
                method=method,
                layer=layer,
                placement=inputs.placements[row],
                counterfactual=counterfactual,
                words=read[slot][row] if read else (),
            )
            for slot, target in enumerate(asked_of_one)
            for method, layer, cams in slots[slot]
        ]
        for row, asked_of_one in enumerate(targets)
    ]
    return [Found(made, text) for made, text in zip(explanations, texts, strict=True)]


def _check_tiles(adapter: Adapter, plan: Plan, inputs: Inputs) -> None:
    """That no map is asked for in the pixels of a picture that the model sees in tiles.

    Raises:
        MethodError: one is.
    """
    tiled = adapter.window is None and inputs.pixels.ndim == 5
    for name in plan.names if tiled else ():
        if any(METHODS[part].needs in ("pixels", "rescore") for part in split(name) if part):
            raise MethodError(
                f"method '{name}' works on the pixels of the model's input, and {adapter.name} "
                "sees a picture as several tiles, which overlap on it; choose a method that takes "
                "gradients at a layer (mmcam list methods)"
            )


def _way(adapter: Adapter, layers: Sequence[str], inputs: Inputs, pixels: Tensor | None) -> str:
    """How gradients are taken: the adapter's way, where it is the fastest and memory allows it."""
    if adapter.way != "fan-out":
        return adapter.way
    at_encoder = pixels is None and list(layers) == [adapter.encoder]
    rows = inputs.asked * len(inputs.pixels)
    return "fan-out" if at_encoder and inputs.asked > 1 and rows <= ROWS else "loop"


def _check_finite(adapter: Adapter, scores: Tensor, slots: Sequence[Sequence[Made]]) -> None:
    """That all scores and maps are numbers.

    Raises:
        ScoreError: a score is not.
        MethodError: a map is not.
    """
    if not scores.isfinite().all():
        raise ScoreError(
            f"{adapter.name} gives a score that is NaN or infinite; check its weights and the "
            "range of its input"
        )
    for method, layer, cams in itertools.chain.from_iterable(slots):
        if not cams.isfinite().all():
            raise MethodError(
                f"method '{method}' gives NaN or infinite values at '{layer}' of {adapter.name}; "
                "check the weights and the range of the input"
            )


def _forward(adapter: Adapter, inputs: Inputs) -> Any:
    """The model's output.

    Raises:
        ModelError: the model cannot run on such an input.
    """
    try:
        return adapter.forward(inputs)
    except RuntimeError as error:
        raise ModelError(
            f"{adapter.name} failed on an input of shape {tuple(inputs.pixels.shape)}: {error}; "
            "give it the size it was made for (preprocess), or another device if memory ran out"
        ) from error


def _targets(adapter: Adapter, output: Any, task: Any, samples: int) -> Sequence[Sequence[Target]]:
    """What the adapter makes of the task; somebody's own task is a list of targets already."""
    if isinstance(task, Target):
        task = [task]
    if isinstance(task, Sequence) and task and all(isinstance(item, Target) for item in task):
        return [list(task)] * samples
    return adapter.targets(output, task)


def _probabilities(output: Any, targets: Sequence[Sequence[Target]]) -> list[list[float | None]]:
    with torch.no_grad():
        return [
            [None if t.log_prob is None else float(t.log_prob(output)[row].exp()) for t in asked]
            for row, asked in enumerate(targets)
        ]


@dataclass
class _Batch:
    """One recorded forward, and the maps that come of it."""

    adapter: Adapter
    inputs: Inputs
    recording: Recording
    layers: list[str]
    plan: Plan
    targets: list[list[Target]]
    counterfactual: bool
    way: str
    words: str | None
    parts: list[Tensor] = field(default_factory=list)

    def maps(self, scores: Tensor, output: Any) -> Iterator[list[Made]]:
        """For each target slot: (method, layer, map of every sample), in the plan's order."""
        rules = sorted(self.plan.rules | {"relu"}, reverse=True)  # plain first: they free least
        streams = {rule: self._gradients(scores, rule, rule == rules[-1]) for rule in rules}
        moments = self._moments(output) if self.plan.needs("moments") else {}
        attentions = self._attentions(output) if self.plan.needs("attention") else []
        for slot in range(len(scores)):
            gradients = {rule: next(stream) for rule, stream in streams.items()}
            if self.words:
                embedded = self.recording.activation(self.words)
                self.parts.append((gradients["relu"][self.words] * embedded).detach().sum(-1))
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
                        made[name, layer] = self._product(
                            gradients[rule]["pixels"], made[base, layer]
                        )
            wanted = set(self.plan.names)
            yield [(name, layer, cam) for (name, layer), cam in made.items() if name in wanted]

    def read(self, words: Sequence[Sequence[Word]]) -> list[list[tuple[tuple[str, float], ...]]]:
        """For each target slot and sample: the words of the question with their part in the score.

        Gradient times input at the words' embedding (Shrikumar et al. 2016), positive for what
        speaks for the target.
        """
        return [
            [
                tuple((word.text, float(row[word.start : word.stop].sum())) for word in asked)
                for row, asked in zip(part, words, strict=True)
            ]
            for part in self.parts
        ]

    def _layers_of(self, method: Method) -> Sequence[str]:
        somewhere = place(method)
        return self.layers if somewhere is None else [somewhere]

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
            made.append(torch.stack(maps).detach().float())
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
        relus = self.recording.relus
        if rule != "relu" and relus is not None and not relus.count:
            raise MethodError(
                f"the '{rule}' rule changes how ReLUs backpropagate, and {self.adapter.name} ran "
                "none (GELU, SiLU and the like have no such rule); use 'gradient' instead"
            )
        # ReLUs whose rule is looked up as the backward runs cannot be batched.
        way = "loop" if self.way == "batched" and relus is not None else self.way
        return self.recording.gradients(scores, names, way=way, rule=rule, last=last)

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
            return gradients[method.rule]["pixels"].detach()
        if method.needs == "rescore":
            return self._rescored(method, layer, slot)
        trace = self._trace(layer, gradients[method.rule][layer])
        if method.needs == "moments":
            # The gradient is that of the negated score; the moments are those of the scores.
            sign = -1.0 if self.counterfactual else 1.0
            return method.compute(trace.activation, sign * trace.gradient, moments[layer], sign)
        return method.compute(trace.activation, trace.gradient)

    def _trace(self, layer: str, gradient: Tensor) -> Trace:
        """Activation and gradient as grids, at least in single precision.

        Raises:
            LayerError: values that are not numbers.
            ScoreError: the score reaches the layer, but no cell of its grid.
        """
        folded = self._fold(layer, gradient)
        activation = self._fold(layer, self.recording.activation(layer))
        for what, values in (("activations", activation), ("gradients", folded)):
            if not values.isfinite().all():
                raise LayerError(
                    f"layer '{layer}' of {self.adapter.name} has NaN or infinite {what}; check "
                    "the weights and the input's range, or run in a wider number type"
                )
        if not folded.any() and gradient.any():
            raise ScoreError(
                f"the score reaches layer '{layer}' through its class token alone, so its grid has "
                "no gradient; explain an earlier layer, such as the norm before the last attention"
            )
        return Trace(activation=activation, gradient=folded)

    def _fold(self, layer: str, tensor: Tensor) -> Tensor:
        folded = self.adapter.grid(layer, tensor.detach(), self.inputs)
        return folded.to(torch.promote_types(folded.dtype, torch.float32))

    def _product(self, pixels: Tensor, cams: Tensor) -> Tensor:
        """The pixel map times the upsampled map (IJCV section 3.2)."""
        space = self.inputs.pixels.shape[2:]
        return pixels.detach() * resize(cams, space)[:, None].to(pixels.dtype)

    def _rescored(self, method: Method, layer: str, slot: int) -> Tensor:
        cams = []
        for row, targets in enumerate(self.targets):
            target = targets[min(slot, len(targets) - 1)]
            rescorer = Rescorer(self.adapter, self.inputs.row(row), target)
            activation = (
                self.inputs.pixels[row].detach()
                if layer == "input"
                else self._fold(layer, self.recording.activation(layer))[row]
            )
            cams.append(method.compute(activation, layer, rescorer))
        return torch.stack(cams)

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
