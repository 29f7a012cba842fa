"""The adapter for captioners that consist of a CNN and an LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmcam.adapters.base import captions
from mmcam.adapters.base.captioner import PromptlessCaptioner
from mmcam.adapters.base.captions import CaptionOutput, Sentence
from mmcam.adapters.base.vocabulary import Vocabulary
from mmcam.adapters.networks.decoding import beam_search
from mmcam.tasks import Caption
from mmcam.types import Inputs


@dataclass(kw_only=True)
class RecurrentCaptioner(PromptlessCaptioner):
    """A captioner with a CNN and an LSTM (`networks.show_and_tell`, `networks.show_attend_tell`).

    The model's `cnn` returns the map that is explained. The model's `teacher_force` returns the
    states of a given caption, which `out` turns into logits; `initial_state` and `step` generate a
    caption.
    """

    tokenizer: Vocabulary
    encoder: str | None = "cnn"
    gradient_strategy: str = "batched"

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
