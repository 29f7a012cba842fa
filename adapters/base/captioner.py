"""The adapter of models that say a caption, word after word; families say how theirs is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmcam.adapters.base import captions
from mmcam.adapters.base.captions import CaptionOutput, CaptionTokenizer, Sentence
from mmcam.errors import LabelError, ModelError
from mmcam.tasks import Caption
from mmcam.types import Inputs, Sample, Target, Weights, Window


@contextmanager
def replace_output(module: nn.Module, output: Any) -> Iterator[None]:
    """Inside, `module` returns `output` (unless that is None) without running; its hooks run."""
    if output is None:
        yield
        return
    own = module.__dict__.get("forward")
    module.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@dataclass(kw_only=True)
class CaptionAdapter(ABC):
    """What every captioner's adapter has in common; a family says how its model is run.

    A family gives `pixels` (preprocessing), `generate` (the model's own captions, and the output of
    its encoder) and `teacher_force` (the logits of given captions).
    """

    name: str
    model: nn.Module
    tokenizer: CaptionTokenizer
    layers: Sequence[str] = ()
    encoder: str | None = None
    gradient_strategy: str = "loop"
    batch: int = 8
    weights: Weights | None = None
    has_attention: bool = False
    words: str | None = None

    window: Window | None = None

    @abstractmethod
    def pixels(self, samples: Sequence[Sample], task: Caption) -> Inputs:
        """The pictures, preprocessed."""

    @abstractmethod
    def generate(self, inputs: Inputs, task: Caption) -> tuple[list[Sentence], Any]:
        """What the model says of each picture, and the encoder's output, to be used again."""

    @abstractmethod
    def teacher_force(self, inputs: Inputs, sentences: Sequence[Sentence]) -> CaptionOutput:
        """The logits of these captions, one a picture, each token given those before it."""

    @abstractmethod
    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """A layer's output as a grid over the input.

        Raises:
            LayerError: it has none.
        """

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """The pictures preprocessed, with the captions that are given or that the model says.

        Raises:
            LabelError: the model cannot say a given caption, or is asked for something else.
            InputError: a clip, or pictures that cannot be one batch.
        """
        if not isinstance(task, Caption):
            raise LabelError(
                f"{self.name} says captions and is not asked by {task!r}; give Caption(...)"
            )
        inputs = self.pixels(samples, task)
        given = [sample.text or None if task.text is None else task.text for sample in samples]
        sentences = [None if text is None else self.tokenizer.encode(text) for text in given]
        encoder_output = None
        if None in sentences:
            with torch.no_grad():
                said, encoder_output = self.generate(inputs, task)
            sentences = [s or other for s, other in zip(sentences, said, strict=True)]
        ready = [sentence for sentence in sentences if sentence is not None]
        return replace(
            inputs, rest={**inputs.rest, "sentences": ready}, encoder_output=encoder_output
        )

    def forward(self, inputs: Inputs) -> CaptionOutput:
        """The captions of `prepare` put into the model's mouth (teacher forcing)."""
        if self.encoder is None:
            return self.teacher_force(inputs, inputs.rest["sentences"])
        with replace_output(self.model.get_submodule(self.encoder), inputs.encoder_output):
            return self.teacher_force(inputs, inputs.rest["sentences"])

    def targets(self, output: CaptionOutput, task: Any) -> list[list[Target]]:
        """The sentence and the words asked for, for each picture, in reading order.

        Raises:
            LabelError: a word that the caption does not have.
        """
        return captions.caption_targets(output.sentences, task, self.has_attention)

    def text(self, output: CaptionOutput, inputs: Inputs) -> list[dict[str, Any]]:
        """The caption of each picture, with log-probabilities."""
        return captions.facts(output)

    def logits(self, output: Any) -> Tensor:
        """A captioner has no classes.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"{self.name} says captions and has no logits of classes; choose a method that needs "
            "none (not gradcam++softmax)"
        )
