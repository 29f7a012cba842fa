"""The adapter for every model that maps a picture or a window of frames to class logits.

Each family passes the functions that pack the model's input, unpack its output and turn a layer's
output into a grid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.adapters.base.imagenet import has_imagenet_classes, imagenet_index
from mmcam.adapters.base.preprocess import Preprocess, Transform, prepare_batch
from mmcam.errors import LabelError, LayerError, ModelError, nearest
from mmcam.grids import to_grid
from mmcam.tasks import Actions, Classes
from mmcam.tasks.scores import LOG_PROB, LOGIT, contrast_of_column
from mmcam.types import Inputs, Layouts, Sample, Score, Target, Weights, Window, log_probs_of

WORDNET_ID = r"n\d{8}"

Probability = str | Callable[[Tensor], Tensor] | None

ToGrid = Callable[[str, Tensor, Sequence[int]], Tensor]


def logits_of(output: Any, shape: str = "[batch, classes]") -> Tensor:
    """The logits in a model's output: the output itself, `.logits`, or the first of a tuple.

    `shape` describes the logits in the error.

    Raises:
        ModelError: none of these is a tensor.
    """
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if logits is None and isinstance(output, (tuple, list)) and output:
        logits = output[0]
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"the model returns a {type(output).__name__}, in which no logits were found; wrap it "
            f"in a module that returns them as a tensor {shape}"
        )
    return logits


@dataclass
class Classifier:
    """A model of classes or actions, ready to be explained.

    `pack` turns pixels `[batch, channel, *space]` into the model's argument, and `unpack` the
    model's output into logits. `to_grid` turns a layer's output into a grid, given the layer's
    name, the output and the size of the input (`space`); `layouts`, if given, take precedence for
    the layers that they cover. `probability` says how logits become probabilities: "softmax" over
    mutually exclusive classes (the sigmoid of a single logit), "sigmoid" for independent classes, a
    function of the logits, or None for scores without probabilities, such as those of a regression.
    """

    name: str
    model: nn.Module
    preprocess: Preprocess | Transform
    labels: Sequence[str] = ()
    layers: Sequence[str] = ()
    weights: Weights | None = None
    pack: Callable[[Tensor], Any] = field(default=lambda pixels: pixels)
    unpack: Callable[[Any], Tensor] = logits_of
    to_grid: ToGrid = field(default=lambda layer, tensor, space: to_grid(tensor, space))

    uses_layouts: ClassVar[bool] = True
    """Whether `grid` uses `layouts`; a family that knows the order of its tokens needs none."""

    layouts: Layouts | None = field(default=None, kw_only=True)
    probability: Probability = field(default="softmax", kw_only=True)
    encoder: str | None = field(default=None, init=False)
    word_embedding: str | None = field(default=None, init=False)
    gradient_strategy: str = field(default="loop", init=False)

    @property
    def batch(self) -> int:
        """The default batch size, in pictures or windows of a clip."""
        return 8 if self.window is None else 1

    @property
    def window(self) -> Window | None:
        """The input window of a video model; None for an image model."""
        return self.preprocess.window

    @property
    def default_task(self) -> Any:
        """The top action of a video model, the top class of an image model."""
        return Classes() if self.window is None else Actions()

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """The samples preprocessed and stacked, on the model's device and in its dtype.

        Raises:
            InputError: a picture for a video model or a clip for an image model, or samples whose
                inputs differ in size.
            ModelError: as `Transform.__call__`.
        """
        return prepare_batch(samples, self.preprocess, self.model, self.name)

    def forward(self, inputs: Inputs) -> Any:
        """The model's own output, of any type; `logits` finds the class scores in it."""
        return self.model(self.pack(inputs.pixels))

    def logits(self, output: Any) -> Float[Tensor, "batch classes"]:
        """The scores of all classes in an output, before any softmax.

        Raises:
            ModelError: the output holds no logits, or they are not `[batch, classes]`.
        """
        logits = self.unpack(output)
        if logits.ndim != 2:
            raise ModelError(
                f"{self.name} returns logits of shape {tuple(logits.shape)}, not [batch, classes]; "
                "pool them in a wrapper module"
            )
        return logits

    def targets(self, output: Any, task: Any) -> list[list[Target]]:
        """The named classes for every sample, or the top classes of each sample.

        Raises:
            LabelError: an unknown or ambiguous label, `top` is more than the number of classes,
                another task, or a score that the model's classes do not have.
            ModelError: as `logits`.
        """
        if not isinstance(task, Classes):
            raise LabelError(
                f"{self.name} does not take {task!r}; give Classes([...]), Actions([...]) or a "
                "list of Target"
            )
        logits = self.logits(output)
        count = logits.shape[1]
        if task.labels is not None:
            row = [self._target(self.index(label, count), task) for label in task.labels]
            return [row] * len(logits)
        if task.top > count:
            raise LabelError(
                f"top={task.top} is more than the {count} classes of {self.name}; ask for fewer"
            )
        top_classes = logits.detach().topk(task.top, dim=1).indices.tolist()
        return [[self._target(index, task) for index in row] for row in top_classes]

    def log_probs(self, output: Any) -> Float[Tensor, "batch classes"] | None:
        """The log-probabilities of all classes; None if the scores have no probabilities.

        Raises:
            ModelError: as `logits`.
        """
        if self.probability is None:
            return None
        if callable(self.probability):
            probabilities = self.probability(self.logits(output)).float()
            return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
        return log_probs_of(self.logits(output), self.probability)

    def _log_prob(self, index: int) -> Score | None:
        """The log-probability of one class as a function of the output, if there is one."""
        if self.probability is None:
            return None

        def log_prob(output: Any) -> Tensor:
            log_probs = self.log_probs(output)
            assert log_probs is not None
            return log_probs[:, index]

        return log_prob

    def _score(self, index: int, name: str) -> Score:
        """The score `name` of one class as a function of the output.

        Raises:
            LabelError: the log-probability of a score without probabilities.
        """
        if name == LOGIT:
            return lambda output: self.logits(output)[:, index]
        if name != LOG_PROB:
            return lambda output: contrast_of_column(self.logits(output), index)
        log_prob = self._log_prob(index)
        if log_prob is None:
            raise LabelError(
                f"score='{LOG_PROB}' needs probabilities and the scores of {self.name} have none "
                "(probability=None); choose logit"
            )
        return log_prob

    def _target(self, index: int, task: Classes) -> Target:
        return Target(
            label=self.label(index),
            score=self._score(index, task.score),
            score_name=task.score,
            log_prob=self._log_prob(index),
            kind=task.kind,
            index=index,
        )

    def label(self, index: int) -> str:
        """The name of a class, or its number if it has no name."""
        return self.labels[index] if index < len(self.labels) else str(index)

    def index(self, label: str | int, classes: int) -> int:
        """The index of the class with a label: a name in any case, a WordNet id or a number.

        Text is compared with the names first, because a name may itself be a number. An int is
        always a number. A WordNet id ("n02012849", or that of a `WordNetLabel`) takes precedence
        over a name, if the model has the 1,000 classes of ImageNet or labels that are such ids.

        Raises:
            LabelError: no class or several classes have that name, the number is out of range, the
                label is beyond the model's scores, or the model has ImageNet's 1,000 classes and
                the WordNet id is of none of them.
        """
        if (from_id := self._index_of_wordnet_id(label)) is not None:
            return self._checked(from_id, label, classes)
        is_number = isinstance(label, int) or label.isdecimal()
        folded = None if isinstance(label, int) else label.casefold()
        matches = [i for i, name in enumerate(self.labels) if name.casefold() == folded]
        if len(matches) == 1:
            return self._checked(matches[0], label, classes)
        if matches:
            raise LabelError(
                f"label '{label}' means several classes of {self.name}; give one of the numbers "
                f"{', '.join(map(str, matches))} instead"
            )
        if is_number and 0 <= int(label) < classes:
            return int(label)
        hint = nearest(str(label), self.labels) if self.labels else f"numbers 0 to {classes - 1}"
        raise LabelError(f"{self.name} has no label '{label}'; nearest: {hint}")

    def _checked(self, index: int, label: str | int, classes: int) -> int:
        """The index of a label, if the model has as many classes.

        Raises:
            LabelError: the model has fewer.
        """
        if index >= classes:
            raise LabelError(
                f"'{label}' is label {index} of the {len(self.labels)} labels given to "
                f"{self.name} (counted from 0), but the model returns {classes} scores; give one "
                "label for each score, in their order"
            )
        return index

    def _index_of_wordnet_id(self, label: str | int) -> int | None:
        """The class of a label's WordNet id; None without an id, or if the ids are unknown."""
        wordnet_id = getattr(label, "wordnet_id", str(label))
        if not re.fullmatch(WORDNET_ID, wordnet_id):
            return None
        if wordnet_id in self.labels:
            return list(self.labels).index(wordnet_id)
        if not has_imagenet_classes(self.labels):
            return None
        index = imagenet_index(wordnet_id)
        if index is None:
            raise LabelError(
                f"WordNet id '{wordnet_id}' is none of the 1,000 ImageNet classes of {self.name}; "
                "give the class by its name or number, or leave the picture out"
            )
        return index

    def text(self, output: Any, inputs: Inputs) -> Sequence[Mapping[str, Any] | None]:
        """None for each sample: a classifier generates no text."""
        return [None] * len(inputs.placements)

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """An output of `layer` as a grid over the input.

        Raises:
            LayerError: the layer has no grid.
        """
        return grid_of(self.layouts, self.to_grid, layer, tensor, inputs)


def reject_layer(layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
    """Raise the error for a layer of a module whose forward pass could not be traced.

    Raises:
        LayerError: always.
    """
    raise LayerError(
        f"the places of its output of shape {tuple(tensor.shape)} on the input could not be "
        "followed; give its grid (grid=...)"
    )


def grid_of(
    layouts: Layouts | None, to_grid: ToGrid, layer: str, tensor: Tensor, inputs: Inputs
) -> Tensor:
    """A layer's output as a grid: by its proven layout if there is one, otherwise by `to_grid`.

    Raises:
        LayerError: the layer has no grid.
    """
    try:
        if layouts is not None and layouts.knows(layer, inputs):
            return layouts.grid(layer, tensor, inputs)
        return to_grid(layer, tensor, inputs.pixels.shape[2:])
    except LayerError as error:
        raise LayerError(f"layer '{layer}': {error}") from error
