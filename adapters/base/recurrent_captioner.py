"""The adapter for captioners that consist of a CNN and an LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from mmcam.adapters.base import captions
from mmcam.adapters.base.captioner import CaptionAdapter
from mmcam.adapters.base.captions import CaptionOutput, Sentence
from mmcam.adapters.base.classifier import ToGrid, grid_of
from mmcam.adapters.base.preprocess import Preprocess, prepare_batch
from mmcam.adapters.base.vocabulary import Vocabulary
from mmcam.adapters.networks.decoding import beam_search
from mmcam.errors import LabelError
from mmcam.grids import to_grid
from mmcam.tasks import Caption
from mmcam.types import Inputs, Sample


@dataclass(kw_only=True)
class RecurrentCaptioner(CaptionAdapter):
    """A captioner with a CNN and an LSTM (`networks.show_and_tell`, `networks.show_attend_tell`).

    The model's `cnn` returns the map that is explained. The model's `teacher_force` returns the
    states of a given caption, which `out` turns into logits; `initial_state` and `step` generate a
    caption.
    """

    uses_layouts: ClassVar[bool] = True

    preprocess: Preprocess
    tokenizer: Vocabulary
    encoder: str | None = "cnn"
    gradient_strategy: str = "batched"
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

    def generate(self, inputs: Inputs, task: Caption) -> tuple[list[Sentence], Tensor]:
        """The generated caption of each picture, and the CNN's maps."""
        model: Any = self.model
        maps = model.cnn(inputs.pixels)
        state = model.initial_state(maps)
        token_ids = [
            beam_search(
                model.step,
                tuple(tensor[row : row + 1] for tensor in state),
                start=self.tokenizer.token("start"),
                end=self.tokenizer.token("end"),
                suppressed_tokens=self.tokenizer.suppressed_tokens,
                num_beams=task.num_beams,
                max_new_tokens=task.max_new_tokens,
            )
            for row in range(len(maps))
        ]
        return [self.tokenizer.decode(tokens) for tokens in token_ids], maps

    def teacher_force(self, inputs: Inputs, sentences: Sequence[Sentence]) -> CaptionOutput:
        """The output for given captions, with the model's attention, if any."""
        tokens = captions.pad_tokens(sentences).to(inputs.pixels.device)
        model: Any = self.model
        states, attention = model.teacher_force(model.cnn(inputs.pixels), tokens)
        return CaptionOutput(
            states, sentences, self.tokenizer.suppressed_tokens, attention, model.out
        )

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """The output of a layer of the CNN as a grid over the input.

        Raises:
            LayerError: the layer has no grid.
        """
        return grid_of(self.layouts, self.to_grid, layer, tensor, inputs)
