"""The adapter of every model that turns a picture or a window of frames into class logits.

Families build it; they say how the model is packed and unpacked and how its layers fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mmcam.adapters.base.preprocess import Preprocess, Transform, batch_of
from mmcam.errors import LabelError, LayerError, ModelError, nearest
from mmcam.grids import to_grid
from mmcam.tasks import Classes
from mmcam.types import Inputs, Sample, Target, Weights, Window

ToGrid = Callable[[str, Tensor, Sequence[int]], Tensor]


def logits_of(output: Any) -> Tensor:
    """The logits in a model's output: itself, its `.logits`, or the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if logits is None and isinstance(output, (tuple, list)) and output:
        logits = output[0]
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"the model gives a {type(output).__name__}, in which no logits were found; wrap it in "
            "a module that returns them as a tensor [batch, classes]"
        )
    return logits


@dataclass
class Classifier:
    """A model of classes or actions, ready to be explained.

    `pack` turns pixels `[batch, 3, *space]` into the model's arguments; `unpack` its output into
    logits; `to_grid` a layer's output into a grid, given the layer and the space of the input.
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

    encoder: str | None = field(default=None, init=False)
    words: str | None = field(default=None, init=False)
    gradient_strategy: str = field(default="loop", init=False)

    @property
    def batch(self) -> int:
        """How many pictures, or windows of a clip, run at once unless the user says otherwise."""
        return 8 if self.window is None else 1

    @property
    def window(self) -> Window | None:
        """What a video model sees at once; None for a model of pictures."""
        return self.preprocess.window

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """The samples preprocessed and stacked, on the model's device and in its number type.

        Raises:
            InputError: a picture for a video model or the other way round, or samples whose
                inputs differ in size.
        """
        return batch_of(samples, self.preprocess, self.model, self.name)

    def forward(self, inputs: Inputs) -> Any:
        """The model's own output, whatever it is; `logits` finds the class scores in it."""
        return self.model(self.pack(inputs.pixels))

    def logits(self, output: Any) -> Float[Tensor, "batch classes"]:
        """The scores of all classes in an output, before any softmax.

        Raises:
            ModelError: there is no `[batch, classes]` in it.
        """
        logits = self.unpack(output)
        if logits.ndim != 2:
            raise ModelError(
                f"{self.name} gives logits of shape {tuple(logits.shape)}; [batch, classes] is "
                "needed: pool them in a module around it"
            )
        return logits

    def targets(self, output: Any, task: Any) -> list[list[Target]]:
        """The named classes for every sample, or each sample's own top ones.

        Raises:
            LabelError: an unknown or ambiguous label; more top labels than classes.
        """
        if not isinstance(task, Classes):
            raise LabelError(
                f"{self.name} is not asked by {task!r}; give Classes([...]), Actions([...]) or a "
                "list of Target"
            )
        logits = self.logits(output)
        classes = logits.shape[1]
        if task.labels is not None:
            row = [self._target(self.index(label, classes), task) for label in task.labels]
            return [row] * len(logits)
        if task.top > classes:
            raise LabelError(
                f"top={task.top} is more than the {classes} classes of {self.name}; ask for fewer"
            )
        tops = logits.detach().topk(task.top, dim=1).indices.tolist()
        return [[self._target(index, task) for index in row] for row in tops]

    def _target(self, index: int, task: Classes) -> Target:
        return Target(
            label=self.label(index),
            score=lambda output: self.logits(output)[:, index],
            log_prob=lambda output: self.logits(output).float().log_softmax(-1)[:, index],
            kind=task.kind,
        )

    def label(self, index: int) -> str:
        """The name of a class, or its number where there is no list of names."""
        return self.labels[index] if index < len(self.labels) else str(index)

    def index(self, label: str | int, classes: int) -> int:
        """The class that a label means: a name in any case, or a number.

        Text is taken for a name first, as names may be numbers too; an int is always a number.

        Raises:
            LabelError: no class or several have that name, or the number is out of range.
        """
        is_number = isinstance(label, int) or label.isdecimal()
        wanted = None if isinstance(label, int) else label.casefold()
        found = [i for i, name in enumerate(self.labels) if name.casefold() == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            raise LabelError(
                f"label '{label}' means several classes of {self.name}: give one of the numbers "
                f"{', '.join(map(str, found))} instead"
            )
        if is_number and 0 <= int(label) < classes:
            return int(label)
        known = nearest(str(label), self.labels) if self.labels else f"numbers 0 to {classes - 1}"
        raise LabelError(f"{self.name} has no label '{label}'; nearest: {known}")

    def text(self, output: Any, inputs: Inputs) -> Sequence[Mapping[str, Any] | None]:
        """A classifier says nothing but classes."""
        return [None] * len(inputs.placements)

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """An output of `layer` as a grid over the input.

        Raises:
            LayerError: it has none.
        """
        try:
            return self.to_grid(layer, tensor, inputs.pixels.shape[2:])
        except LayerError as error:
            raise LayerError(f"layer '{layer}': {error}") from error
