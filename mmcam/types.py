"""The things that flow: a sample, what the model eats, what is explained, what was traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, nn

Pixels = UInt8[np.ndarray, "*time height width 3"]
Score = Callable[[Any], Float[Tensor, " batch"]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture or clip as it was read, upright RGB, before any model's preprocessing.

    `span` says which stretch of a longer clip the frames of `pixels` stand for, in frames of that
    clip counted from its start: four frames taken from the first 48 have the span (0, 48).
    """

    pixels: Pixels
    id: str = "array"
    text: str = ""
    span: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model's input lies on the original it was made from.

    `box` is (left, top, right, bottom) of the input's edges, in pixels of the original, whose
    `size` is (height, width). A crop has a box inside the original, padding one that reaches out
    of it. `spans` holds, for a clip, the stretch of frames (first, last) that each explained
    window stands for; maps of several windows are joined along time. It is empty for a picture.
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float]
    spans: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the model eats, and where each row of it lies on its sample.

    `rest` holds the model's other inputs, each a tensor or sequence with a row per sample.
    `encoder_output` is the output of the adapter's `encoder` for these pixels, kept from the
    generation of a text so that it need not run again. `output_attentions` asks the model to keep
    its own attention.

    If a sample has several rows, one for each generated answer, `sample_index` holds the sample of
    each row, and `contrasts` the pairs of rows that are explained as one score minus the other.
    """

    pixels: Float[Tensor, "batch 3 *space"]
    placements: tuple[Placement, ...]
    rest: Mapping[str, Any] = field(default_factory=dict)
    encoder_output: Any = None
    output_attentions: bool = False
    sample_index: tuple[int, ...] = ()
    contrasts: tuple[tuple[int, int], ...] = ()

    def row(self, index: int) -> Inputs:
        """One sample of the batch, as a batch of one, cut from any graph."""
        one = slice(index, index + 1)
        rest = {key: value[one] for key, value in self.rest.items()}
        return Inputs(pixels=self.pixels[one].detach(), placements=self.placements[one], rest=rest)

    def copied(self) -> Inputs:
        """The same with pixels of their own, for a forward: a model may work on them in place."""
        return replace(self, pixels=self.pixels.clone())

    def repeated(self, pixels: Float[Tensor, "n 3 *space"]) -> Inputs:
        """Changed pixels for a batch of one, with the rest of it repeated for each row."""
        times = len(pixels)
        rest = {
            key: value.repeat(times, *[1] * (value.ndim - 1))
            if isinstance(value, Tensor)
            else value * times
            for key, value in self.rest.items()
        }
        return Inputs(pixels=pixels, placements=self.placements * times, rest=rest)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is explained: one differentiable score of the model's output for each sample.

    `score` maps the output to one number a row, before the softmax unless the label says
    otherwise; `log_prob`, where there is one, to the natural logarithm of its probability.
    `position` ties a word to its place in the sentence. `attention`, where the model has one of its
    own, gives where it looked: a map a row, to compare with.
    """

    label: str
    score: Score
    kind: str = "class"
    position: int | None = None
    log_prob: Score | None = None
    attention: Callable[[Any], Float[Tensor, "batch *grid"]] | None = None

    @staticmethod
    def logit(index: int, label: str | None = None, kind: str = "class") -> Target:
        """The score of one class, for a model whose output is logits `[batch, classes]`."""
        return Target(
            label=str(index) if label is None else label,
            score=lambda logits: logits[:, index],
            log_prob=lambda logits: logits.float().log_softmax(-1)[:, index],
            kind=kind,
        )

    def negated(self) -> Target:
        """The counterfactual target (IJCV eq. 12): what speaks against the score."""
        score = self.score
        return replace(self, score=lambda output: -score(output))


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What one layer did for one target, folded into a grid: (h, w) or (t, h, w).

    Where only the gradient's mean counts, `gradient` may have that in a grid of one cell.
    """

    activation: Float[Tensor, "batch channel *grid"]
    gradient: Float[Tensor, "batch channel *#grid"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a video model sees at once: `frames` frames, `stride` apart in a clip of rate `fps`.

    Where `fps` is None the stride counts frames of any clip.
    """

    frames: int
    stride: float = 1.0
    fps: float | None = None

    def length(self, fps: float) -> float:
        """How many frames of a clip of rate `fps` a window stands for."""
        return self.frames * self.stride * (fps / self.fps if self.fps else 1.0)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a model's weights came from, for the record: a path or a name, and the file's hash."""

    source: str
    sha256: str | None = None


@runtime_checkable
class Adapter(Protocol):
    """What a family of models has to say about itself to be explained."""

    layers: Sequence[str]
    """The layers that are explained when the user names none; empty: found by a probe, once."""

    @property
    def name(self) -> str:
        """What results call the model."""
        ...

    @property
    def model(self) -> nn.Module:
        """The network itself, as the user has it."""
        ...

    @property
    def encoder(self) -> str | None:
        """The layer whose output is kept from generation (`Inputs.encoder_output`), if any."""
        ...

    @property
    def words(self) -> str | None:
        """The layer that embeds the words of a question, `[row, word, width]`; None: there is none.

        `Inputs.rest["words"]` then holds, for each sample, the words (`tasks.words.Word`) and
        their places in it.
        """
        ...

    @property
    def gradient_strategy(self) -> str:
        """Fastest way to compute the gradients of many scores: "loop" or "batched".

        (`capture.recording.GRADIENT_STRATEGIES`; both give the same gradients.)
        """
        ...

    @property
    def batch(self) -> int:
        """How many samples, or windows of a clip, run at once unless the user says otherwise."""
        ...

    @property
    def window(self) -> Window | None:
        """What a video model sees at once; None for a model of pictures."""
        ...

    @property
    def weights(self) -> Weights | None:
        """Where the weights came from; None where nobody knows."""
        ...

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """What the model eats for these samples, and where it lies on them.

        Runs in evaluation mode; a text that the task leaves to the model is generated here.
        """
        ...

    def forward(self, inputs: Inputs) -> Any:
        """The model's output, as `targets` understands it."""
        ...

    def logits(self, output: Any) -> Float[Tensor, "batch classes"]:
        """The scores of all classes that an output holds.

        Raises:
            ModelError: it holds none.
        """
        ...

    def targets(self, output: Any, task: Any) -> Sequence[Sequence[Target]]:
        """What is asked of each sample, in the order in which it is reported.

        Raises:
            LabelError: the model does not know what is asked.
        """
        ...

    def text(self, output: Any, inputs: Inputs) -> Sequence[Mapping[str, Any] | None]:
        """What was said of each sample, for the record (`explanation.json`); None where nothing."""
        ...

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Float[Tensor, "batch channel *g"]:
        """An activation or gradient of `layer`, folded into a grid that lies over the input.

        Raises:
            LayerError: the layer has no such grid.
        """
        ...
