"""The core types: samples, model inputs, targets, traces, and the adapter protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

from mmcam.errors import ScoreError

Pixels = UInt8[np.ndarray, "*time height width 3"]
Score = Callable[[Any], Float[Tensor, " batch"]]

Extent = tuple[tuple[float, float], ...]
"""For each axis of a grid (time, rows, columns), the interval of the input that its cells cover, as
shares of the input's length. Empty if the cells cover the input exactly: (0, 1) along each axis."""


class WordNetLabel(str):
    """A class's name together with its WordNet id, as in ImageNet ("n02012849").

    The name alone may mean several classes: ImageNet has two cranes. A label equals the plain name.
    """

    wordnet_id: str

    def __new__(cls, name: str, wordnet_id: str) -> WordNetLabel:
        label = super().__new__(cls, name)
        label.wordnet_id = wordnet_id
        return label

    def __reduce__(self) -> tuple[Any, ...]:
        return WordNetLabel, (str(self), self.wordnet_id)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture or clip as it was read, upright RGB, before the model's preprocessing.

    `id` names the sample in results and errors, and `text` is its caption or question, if any.
    `span` is the interval of a longer clip that the frames of `pixels` represent, in frames of that
    clip counted from its start: four frames taken from the first 48 have the span (0, 48).
    `source` is what the model's preprocessing takes instead of `pixels`, if the user gave something
    other than RGB: a tensor (the model's input), an array or a PIL image. Then `pixels` only show
    it.
    """

    pixels: Pixels
    id: str = "array"
    text: str = ""
    span: tuple[float, float] | None = None
    source: Any = None


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model's input lies on the original.

    `box` is (left, top, right, bottom) of the input's edges, in pixels of the original, whose
    `size` is (height, width). The box of a crop lies inside the original; with padding the box
    extends beyond the original. For a clip, `spans` holds the interval of frames (first, last) that
    each explained window represents; maps of several windows are joined along time. For a picture
    `spans` is empty. `extent` is where the map's cells lie on the input; the cells of a layer with
    padding and strides may lie beside the equal parts of the input.
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float]
    spans: tuple[tuple[float, float], ...] = ()
    extent: Extent = ()

    def along(self, axis: int) -> tuple[float, float]:
        """The interval of the input that the map's cells cover along an axis; (0, 1) by default.

        `axis` is an axis of the map: -1 for columns, -2 for rows, -3 for time.
        """
        return self.extent[axis] if self.extent else (0.0, 1.0)

    def centres(self, axis: int, cells: int) -> list[float]:
        """The centres of a map's `cells` along an axis, as shares of the input."""
        start, end = self.along(axis)
        return [start + (index + 0.5) / cells * (end - start) for index in range(cells)]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The model's input for a batch, and the placement of each row on its sample.

    `rest` holds the model's other inputs, each a tensor or sequence with one row per sample.
    `encoder_output` is the output of the adapter's `encoder` for these pixels, kept from the
    generation of a text to avoid a second run. With `output_attentions` the model also outputs its
    attention weights.

    If a sample has several rows, one for each answer, `sample_index` holds the sample of each row,
    and `contrasts` the pairs of rows to explain as the first score minus the second.
    """

    pixels: Shaped[Tensor, "batch channel *space"]
    placements: tuple[Placement, ...]
    rest: Mapping[str, Any] = field(default_factory=dict)
    encoder_output: Any = None
    output_attentions: bool = False
    sample_index: tuple[int, ...] = ()
    contrasts: tuple[tuple[int, int], ...] = ()

    def row(self, index: int) -> Inputs:
        """One row as a batch of one, its pixels detached from any graph.

        The encoder's output, the sample index and the contrasts are left out.
        """
        row = slice(index, index + 1)
        rest = {key: value[row] for key, value in self.rest.items()}
        return Inputs(pixels=self.pixels[row].detach(), placements=self.placements[row], rest=rest)

    def copied(self) -> Inputs:
        """The same inputs with cloned pixels: a model may modify its input in place."""
        return replace(self, pixels=self.pixels.clone())

    def repeated(self, pixels: Shaped[Tensor, "n channel *space"]) -> Inputs:
        """A batch of one with its pixels replaced by `n` others and the rest repeated `n` times.

        The encoder's output, the sample index and the contrasts are left out.
        """
        times = len(pixels)
        rest = {
            key: value.repeat(times, *[1] * (value.ndim - 1))
            if isinstance(value, Tensor)
            else value * times
            for key, value in self.rest.items()
        }
        return Inputs(pixels=pixels, placements=self.placements * times, rest=rest)


@dataclass(frozen=True)
class StoredScore:
    """Takes the place of the functions of a target that was pickled, or read from a result folder.

    Functions are not stored: most are lambdas, and others hold the whole model.
    """

    label: str

    def __call__(self, output: Any) -> Float[Tensor, " batch"]:
        """Refuse to compute a score.

        Raises:
            ScoreError: always.
        """
        raise ScoreError(
            f"the target '{self.label}' was pickled or read from files, which hold no score "
            "functions; explain with a new target or task (its maps, score and probability are "
            "in its explanation)"
        )


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is explained: one differentiable score of the model's output for each sample.

    `score` maps the output to one number per row, such as a logit or a log-probability. `kind` is
    "class", "action", "answer", "word", "sentence" or "contrast" (a difference of two scores).
    `score_name` is the score's name in `tasks.scores`; None for a contrast or a score of your own.
    `log_prob`, if any, maps the output to the natural logarithm of the target's probability.
    `index` is the number of a class, whose name may not be unique. `position` is the position of a
    word in the sentence. `attention`, if any, maps the output to the model's attention map for this
    target, one per row (the method "attention").

    A copy keeps the functions. A pickled target does not: they raise ScoreError when called.
    """

    label: str
    score: Score
    kind: str = "class"
    score_name: str | None = None
    index: int | None = None
    position: int | None = None
    log_prob: Score | None = None
    attention: Callable[[Any], Float[Tensor, "batch *grid"]] | None = None

    @staticmethod
    def logit(index: int, label: str | None = None, kind: str = "class") -> Target:
        """The score of one class, for a model whose output is logits `[batch, classes]`."""
        return Target(
            label=str(index) if label is None else label,
            score=lambda logits: logits[:, index],
            log_prob=lambda logits: log_probs_of(logits)[:, index],
            kind=kind,
            score_name="logit",
            index=index,
        )

    def negated(self) -> Target:
        """The counterfactual target (Grad-CAM, IJCV 2020, eq. 12): evidence against the score."""
        score = self.score
        return replace(self, score=lambda output: -score(output))

    def __copy__(self) -> Target:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Target:
        # A deep copy of a function that is a method would copy its model.
        return replace(self)

    def __getstate__(self) -> dict[str, Any]:
        """The fields, with each function replaced by a `StoredScore`."""
        functions = ("score", "log_prob", "attention")
        stored = StoredScore(self.label)
        return {
            name: stored if name in functions and value is not None else value
            for name, value in vars(self).items()
        }


def log_probs_of(
    logits: Float[Tensor, "batch classes"], head: str = "softmax"
) -> Float[Tensor, "batch classes"]:
    """Log-probabilities of exclusive classes ("softmax") or of independent classes ("sigmoid").

    The probability of a single logit is its sigmoid in either case.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if head == "sigmoid" or logits.shape[1] == 1:
        return torch.nn.functional.logsigmoid(logits)
    return logits.log_softmax(1)


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A layer's activation and gradient for one target, on a grid: (h, w) or (t, h, w).

    For methods that need only the mean gradient, `gradient` may be that mean, on a grid of one
    cell.
    """

    activation: Float[Tensor, "batch channel *grid"]
    gradient: Float[Tensor, "batch channel *#grid"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """The input window of a video model: `frames` frames, `stride` apart in a clip of rate `fps`.

    If `fps` is None, the stride counts the clip's own frames.
    """

    frames: int
    stride: float = 1.0
    fps: float | None = None

    def length(self, fps: float) -> float:
        """The length of a window in frames of a clip of rate `fps`."""
        return self.frames * self.stride * (fps / self.fps if self.fps else 1.0)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The origin of a model's weights, for the record: a path or a name, and the file's SHA-256."""

    source: str
    sha256: str | None = None


class SpatialLayer(NamedTuple):
    """A layer whose output has a grid of at least 2 x 2 cells over the input."""

    name: str
    channels: int
    grid: tuple[int, ...]


@runtime_checkable
class Layouts(Protocol):
    """The proven layouts of a model's layers: the input location of each entry of an output."""

    def prove(self, adapter: Adapter, inputs: Inputs, layers: Sequence[str]) -> None:
        """Find the layouts of these layers for inputs of this size, unless they are known.

        If the forward pass cannot be traced, the layouts remain unknown.

        Raises:
            ModelError: the model itself fails on the inputs.
        """
        ...

    def spatial(self, adapter: Adapter, inputs: Inputs) -> Sequence[SpatialLayer]:
        """All layers with a grid of at least 2 x 2 cells, in the order in which they run.

        Empty if the forward pass cannot be traced.

        Raises:
            ModelError: the model itself fails on the inputs.
        """
        ...

    def knows(self, layer: str, inputs: Inputs) -> bool:
        """Whether a layer's output has been traced for inputs of this size."""
        ...

    def extent(self, layer: str, inputs: Inputs) -> Extent:
        """Where the cells of a layer's grid lie on the input; empty if the layer is unknown."""
        ...

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Float[Tensor, "batch channel *g"]:
        """An output of `layer`, or its gradient, as a grid over the input.

        Raises:
            LayerError: the layer has no grid.
        """
        ...


@runtime_checkable
class Adapter(Protocol):
    """The interface through which mmcam explains a model; `mmcam.explain` takes any such object.

    For one batch, mmcam calls `prepare(samples, task)`, then `forward(inputs)` while it records the
    layers, `targets(output, task)`, each target's score of that same output, `grid` for each
    layer's activation and gradient, and `text(output, inputs)`. The row `i` of everything belongs
    to sample `i`, unless `Inputs.sample_index` says otherwise. `forward` must be differentiable
    from the explained layers to the scores, run without random numbers, and leave the model as it
    was; mmcam puts the model into evaluation mode and restores its mode.

    An adapter needs no base class. To change one step of an existing adapter, inherit from its
    class and override the method: `mmcam.wrap`, `wrap_captioner`, `wrap_vqa`, `load` and
    `from_transformers` return ordinary dataclasses. An adapter of your own with `layouts = None`
    turns its layers into grids in `grid` itself. A folder or the command line reaches an adapter
    through a function that returns it: `package.module:function`.

    Errors for bad input are raised as subclasses of `MmcamError`; other exceptions of `forward`
    become `ModelError`.

    Example:
        >>> class Plain:
        ...     # A classifier of 224 x 224 pictures, whose layer is a map [batch, channel, h, w].
        ...     name, layers, batch, gradient_strategy = "plain", ["trunk"], 8, "loop"
        ...     layouts = window = weights = encoder = word_embedding = None
        ...     default_task = mmcam.Classes()
        ...     def __init__(self, net): self.model = net
        ...     def prepare(self, samples, task):
        ...         pixels = torch.stack([my_resize(sample.pixels) for sample in samples])
        ...         places = [sample.pixels.shape[:2] for sample in samples]
        ...         return mmcam.Inputs(pixels=pixels, placements=tuple(
        ...             mmcam.Placement(size=(h, w), box=(0, 0, w, h)) for h, w in places))
        ...     def forward(self, inputs): return self.model(inputs.pixels)
        ...     def logits(self, output): return output
        ...     def log_probs(self, output): return output.log_softmax(1)
        ...     def targets(self, output, task): return [[mmcam.Target.logit(0)]] * len(output)
        ...     def text(self, output, inputs): return [None] * len(output)
        ...     def grid(self, layer, tensor, inputs): return tensor
    """

    layers: Sequence[str]
    """The layers to explain by default; if empty, a probe finds one on the first run."""

    @property
    def name(self) -> str:
        """The model's name in results."""
        ...

    @property
    def model(self) -> nn.Module:
        """The user's network, unchanged."""
        ...

    @property
    def layouts(self) -> Layouts | None:
        """Layouts proven by tracing the input through the model; None if `grid` needs none."""
        ...

    @property
    def encoder(self) -> str | None:
        """The layer whose output is kept from generation (`Inputs.encoder_output`), if any."""
        ...

    @property
    def word_embedding(self) -> str | None:
        """The layer that embeds the words of a question, `[row, word, width]`, if any.

        `Inputs.rest["words"]` then holds each sample's words with their positions in the embedding
        (`tasks.words.Word`).
        """
        ...

    @property
    def gradient_strategy(self) -> str:
        """Fastest way to compute the gradients of many scores: "loop", "batched" or "auto".

        See `capture.recording.GRADIENT_STRATEGIES`; all give the same gradients.
        """
        ...

    @property
    def batch(self) -> int:
        """The default number of samples, or windows of a clip, in one batch."""
        ...

    @property
    def window(self) -> Window | None:
        """The input window of a video model; None for an image model."""
        ...

    @property
    def weights(self) -> Weights | None:
        """The origin of the weights; None if unknown."""
        ...

    @property
    def default_task(self) -> Any:
        """The task if the user names none, such as `Classes()`."""
        ...

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """The model's input for these samples, and its placement on each.

        Runs in evaluation mode. If the task gives no text, the model generates it here.

        Raises:
            InputError: the samples do not fit the model; its subclass UnequalInputsError if their
                inputs cannot be one batch.
            LabelError: the model does not take the task or its text.
            ModelError: the preprocessing fails, or the model fails while it generates.
        """
        ...

    def forward(self, inputs: Inputs) -> Any:
        """The model's output, in the form that `targets` takes."""
        ...

    def log_probs(self, output: Any) -> Float[Tensor, "batch classes"] | None:
        """The log-probabilities of all classes; None if the model gives no probabilities.

        Raises:
            ModelError: as `logits`.
        """
        ...

    def logits(self, output: Any) -> Float[Tensor, "batch classes"]:
        """The logits of all classes in an output.

        Raises:
            ModelError: the output has no class logits.
        """
        ...

    def targets(self, output: Any, task: Any) -> Sequence[Sequence[Target]]:
        """The targets of each sample, in the order of the results.

        Raises:
            LabelError: the model has no such label, word or answer, or does not take the task.
            ModelError: as `logits`.
        """
        ...

    def text(self, output: Any, inputs: Inputs) -> Sequence[Mapping[str, Any] | None]:
        """The text of each sample for `explanation.json`; None for a sample without one."""
        ...

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Float[Tensor, "batch channel *g"]:
        """An activation or gradient of `layer` as a grid over the input.

        Raises:
            LayerError: the layer has no such grid.
        """
        ...
