"""The base class of adapters for captioning models; each family defines how its model runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmcam.adapters.base import captions
from mmcam.adapters.base.captions import CaptionOutput, CaptionTokenizer, Sentence
from mmcam.adapters.base.classifier import ToGrid, grid_of
from mmcam.adapters.base.outputs import replace_output
from mmcam.adapters.base.preprocess import Preprocess, Transform, prepare_batch
from mmcam.errors import LabelError, ModelError, model_errors
from mmcam.grids import to_grid
from mmcam.tasks import Caption
from mmcam.types import Inputs, Layouts, Sample, Target, Weights, Window


@dataclass(kw_only=True)
class CaptionAdapter(ABC):
    """The base class of all adapters for captioning models.

    A family implements `prepare_pixels` (preprocessing), `generate` (generated captions and the
    encoder's output), `teacher_force` (the logits of given captions) and `grid`.
    """

    uses_layouts: ClassVar[bool] = False
    """Whether `grid` uses `layouts`; a family that knows the order of its tokens needs none."""

    name: str
    model: nn.Module
    tokenizer: CaptionTokenizer
    layers: Sequence[str] = ()
    encoder: str | None = None
    gradient_strategy: str = "loop"
    batch: int = 8
    weights: Weights | None = None
    has_attention: bool = False
    word_embedding: str | None = None
    layouts: Layouts | None = None

    window: Window | None = None

    @abstractmethod
    def prepare_pixels(self, samples: Sequence[Sample], task: Caption) -> Inputs:
        """The pictures, preprocessed."""

    @abstractmethod
    def generate(self, inputs: Inputs, task: Caption) -> tuple[list[Sentence], Any]:
        """The generated caption of each picture, and the encoder's output for reuse."""

    @abstractmethod
    def teacher_force(self, inputs: Inputs, sentences: Sequence[Sentence]) -> CaptionOutput:
        """The logits of given captions, one per picture; each token depends on those before it."""

    @abstractmethod
    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """A layer's output as a grid over the input.

        Raises:
            LayerError: the layer has no grid.
        """

    @property
    def default_task(self) -> Any:
        """The caption of each sample: its text, or the generated one."""
        return Caption()

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """The pictures, preprocessed, with the given or the generated captions.

        Raises:
            LabelError: a given caption cannot be tokenized, the task is not `Caption`, or the model
                does not take its prompt.
            InputError: a clip, or pictures that cannot be one batch.
            ModelError: the preprocessing fails, or the model fails while it generates.
        """
        if not isinstance(task, Caption):
            raise LabelError(
                f"{self.name} generates captions and does not take {task!r}; give Caption(...)"
            )
        inputs = self.prepare_pixels(samples, task)
        texts = [(sample.text or None) if task.text is None else task.text for sample in samples]
        given = [None if text is None else self.tokenizer.encode(text) for text in texts]
        encoder_output = None
        if None in given:
            with torch.no_grad(), model_errors(self.name, inputs.pixels.shape):
                generated, encoder_output = self.generate(inputs, task)
            given = [forced or sentence for forced, sentence in zip(given, generated, strict=True)]
        sentences = [sentence for sentence in given if sentence is not None]
        return replace(
            inputs, rest={**inputs.rest, "sentences": sentences}, encoder_output=encoder_output
        )

    def forward(self, inputs: Inputs) -> CaptionOutput:
        """The output for the captions of `prepare`, teacher-forced."""
        if self.encoder is None:
            return self.teacher_force(inputs, inputs.rest["sentences"])
        with replace_output(self.model.get_submodule(self.encoder), inputs.encoder_output):
            return self.teacher_force(inputs, inputs.rest["sentences"])

    def targets(self, output: CaptionOutput, task: Any) -> list[list[Target]]:
        """For each picture the sentence, then the requested words in reading order.

        Raises:
            LabelError: a requested word is not in the caption.
        """
        return captions.caption_targets(output.sentences, task, self.has_attention)

    def text(self, output: CaptionOutput, inputs: Inputs) -> list[dict[str, Any]]:
        """The caption of each picture, with log-probabilities."""
        return captions.caption_facts(output)

    def log_probs(self, output: Any) -> Tensor | None:
        """None: a captioner has no classes."""
        return None

    def logits(self, output: Any) -> Tensor:
        """Always an error: a captioner has no classes.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"{self.name} generates captions and has no logits of classes; choose a method that "
            "needs none (not gradcam++softmax)"
        )


@dataclass(kw_only=True)
class PromptlessCaptioner(CaptionAdapter):
    """A captioner that takes pictures alone; the layouts of its layers are proven by tracing."""

    uses_layouts: ClassVar[bool] = True

    preprocess: Preprocess | Transform
    to_grid: ToGrid = field(default=lambda layer, tensor, space: to_grid(tensor, space))

    def prepare_pixels(self, samples: Sequence[Sample], task: Caption) -> Inputs:
        """The pictures, preprocessed.

        Raises:
            LabelError: a prompt; these models take none.
            InputError: a clip, or pictures that cannot be one batch.
            ModelError: as `Transform.__call__`.
        """
        if task.prompt is not None:
            raise LabelError(
                f"{self.name} takes no prompt ('{task.prompt}'); leave it out, or choose a model "
                "that follows instructions (mmcam list models)"
            )
        return prepare_batch(samples, self.preprocess, self.model, self.name)

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """The output of a layer as a grid over the input.

        Raises:
            LayerError: the layer has no grid.
        """
        return grid_of(self.layouts, self.to_grid, layer, tensor, inputs)
