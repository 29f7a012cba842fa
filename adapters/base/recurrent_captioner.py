"""The adapter of a CNN and an LSTM that says captions of its map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmcam.adapters.base import captions
from mmcam.adapters.base.captioner import Speaker
from mmcam.adapters.base.captions import Sentence, Spoken
from mmcam.adapters.base.classifier import Fold
from mmcam.adapters.base.preprocess import Preprocess, batch_of
from mmcam.adapters.base.vocabulary import Vocabulary
from mmcam.adapters.networks.decoding import beam_search
from mmcam.errors import LabelError, LayerError
from mmcam.grids import fold
from mmcam.tasks import Caption
from mmcam.types import Inputs, Sample


@dataclass(kw_only=True)
class RecurrentCaptioner(Speaker):
    """A CNN and an LSTM (`networks.show_and_tell`, `networks.show_attend_tell`).

    The model's `cnn` makes the map that is explained; `tell` gives the states that its `out` makes
    logits of, for captions that are given, `begin` and `step` say one.
    """

    preprocess: Preprocess
    language: Vocabulary
    encoder: str | None = "cnn"
    gradient_strategy: str = "batched"
    folds: Fold = field(default=lambda layer, tensor, space: fold(tensor, space))

    def pixels(self, samples: Sequence[Sample], task: Caption) -> Inputs:
        """The pictures, preprocessed.

        Raises:
            LabelError: a prompt, which such a model does not take.
        """
        if task.prompt is not None:
            raise LabelError(
                f"{self.name} takes no prompt ('{task.prompt}'); leave it out, or choose a model "
                "that follows instructions (mmcam list models)"
            )
        return batch_of(samples, self.preprocess, self.model, self.name)

    def generate(self, inputs: Inputs, task: Caption) -> tuple[list[Sentence], Tensor]:
        """What the model says of each picture, and the CNN's maps."""
        model: Any = self.model
        maps = model.cnn(inputs.pixels)
        state = model.begin(maps)
        said = [
            beam_search(
                model.step,
                tuple(part[row : row + 1] for part in state),
                start=self.language.token("start"),
                end=self.language.token("end"),
                silent=self.language.silent,
                beam=task.beam,
                limit=task.limit,
            )
            for row in range(len(maps))
        ]
        return [self.language.decode(tokens) for tokens in said], maps

    def tell(self, inputs: Inputs, sentences: Sequence[Sentence]) -> Spoken:
        """The logits of these captions; with attention, where the model looked."""
        tokens = captions.padded(sentences).to(inputs.pixels.device)
        model: Any = self.model
        states, attention = model.tell(model.cnn(inputs.pixels), tokens)
        return Spoken(states, sentences, self.language.silent, attention, model.out)

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """A layer of the CNN as a grid over the input.

        Raises:
            LayerError: it has none.
        """
        try:
            return self.folds(layer, tensor, inputs.pixels.shape[2:])
        except LayerError as error:
            raise LayerError(f"layer '{layer}': {error}") from error
