"""ViLT's model of answers: words and patches in one encoder, answers by classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmcam.adapters.base.answerer import AnswerClassifier, AnswerOutput, Question
from mmcam.adapters.base.preprocess import Preprocess, Transform
from mmcam.adapters.base.recipe import Recipe, counted
from mmcam.adapters.transformers.loading import build_model, convert_state_dict, load_processor
from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import LayerError, ModelError
from mmcam.tasks.words import Word, align
from mmcam.types import Inputs, Sample

KIND = "ViltForQuestionAnswering"
LAYER = "vilt.encoder.layer.-1.layernorm_before"
"""Above it only the class token is read, which has no place in the picture."""
WORDS = "vilt.embeddings.text_embeddings.word_embeddings"


def load_vilt(recipe: Recipe, config: Any) -> ViltAdapter:
    """A ViLT that answers questions, with its own processor.

    Raises:
        ModelError: no processor, or a ViLT for something else.
        WeightsError: the weights do not fit.
    """
    from transformers import ViltForQuestionAnswering

    named = config.architectures or [KIND]
    if KIND not in named:
        raise ModelError(
            f"'{recipe.name}' is a {named[0]}, which answers no questions; choose a checkpoint of "
            f"{KIND}"
        )
    processor = load_processor(recipe, config)
    model = build_model(recipe, ViltForQuestionAnswering, config)
    labels = tuple(name for _, name in sorted((config.id2label or {}).items()))
    named_labels = not all(name.startswith("LABEL_") for name in labels)
    tokens = TransformersTokenizer(tokenizer=processor.tokenizer, name=recipe.title, ends=())
    return ViltAdapter(
        name=recipe.title,
        model=model,
        preprocess=Whole(partial(_pixels, processor.image_processor))
        if recipe.preprocess is None
        else Preprocess.of(recipe.preprocess),
        labels=recipe.labels or (labels if named_labels else ()),
        layers=recipe.layers or (counted(model, LAYER),),
        weights=recipe.fill(model, partial(convert_state_dict, type(model), config)),
        read=partial(_read, tokens, config.max_position_embeddings),
        words=WORDS,
        gradient_strategy="batched",
    )


class Whole(Transform):
    """An image processor that resizes the whole picture, and does nothing else to its shape."""

    def _box(self, height: int, width: int) -> tuple[float, float, float, float]:
        return 0.0, 0.0, float(width), float(height)


def _pixels(processor: Any, image: Any) -> Tensor:
    pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
    return pixels


def _read(tokens: TransformersTokenizer, limit: int, text: str) -> Question:
    """A question between its two special tokens, as far as the model has positions for it."""
    spelled, offsets = tokens.tokenized(text)
    kept = spelled[: limit - 2]
    tokenizer = tokens.tokenizer
    ids = torch.tensor([tokenizer.cls_token_id, *kept, tokenizer.sep_token_id])
    words = align(text, offsets[: len(kept)])
    unknown = [w for w in words if tokenizer.unk_token_id in kept[w.start : w.stop]]
    return Question(
        arguments=(ids, torch.ones_like(ids)),
        words=tuple(Word(word.text, word.start + 1, word.stop + 1) for word in words),
        unknown=tuple(word.text for word in unknown if not word.is_mark),
        unread=len(align(text, offsets)) - len(words),
    )


class InOrder(TorchFunctionMode):
    """Inside, nothing is drawn by chance: what is drawn is evenly spread and stands in order.

    ViLT draws its patches, without replacement, in a new order in every forward, to which it is
    indifferent.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is not torch.multinomial:
            return function(*args, **(kwargs or {}))
        weights, count = args
        return _spread(len(weights), int(count)).to(weights.device)


def _spread(have: int, count: int) -> Tensor:
    """So many numbers below `have`, evenly spread and in order."""
    return torch.arange(count) * have // count


@dataclass
class ViltAdapter(AnswerClassifier):
    """`ViltForQuestionAnswering`. Its answers are no rivals: each has a probability of its own."""

    @property
    def batch(self) -> int:
        """Pictures keep their proportions, so each is a batch of its own."""
        return 1

    def pictures(self, samples: Sequence[Sample]) -> Inputs:
        """The pictures preprocessed and stacked, all of them to be looked at.

        Raises:
            InputError: a clip, or pictures of different proportions.
        """
        inputs = super().pictures(samples)
        mask = inputs.pixels.new_ones(inputs.pixels[:, 0].shape, dtype=torch.long)
        return replace(inputs, rest={"pixel_mask": mask})

    def forward(self, inputs: Inputs) -> AnswerOutput:
        """The logits of all answers, the patches in order."""
        model: Any = self.model
        with InOrder():
            output = model(
                input_ids=inputs.rest["question_0"],
                attention_mask=inputs.rest["question_1"],
                pixel_values=inputs.pixels,
                pixel_mask=inputs.rest["pixel_mask"],
            )
        return AnswerOutput(output.logits, None)

    def log_probs(self, output: AnswerOutput) -> Float[Tensor, "row answer"]:
        """The log-probability of every answer by itself."""
        return nn.functional.logsigmoid(output.logits.float())

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """The patches of a layer on their own places; zero where the model does not look.

        Raises:
            LayerError: the layer has no patches.
        """
        model: Any = self.model
        sides = model.vilt.embeddings.patch_embeddings.projection.kernel_size
        height, width = (
            length // side for length, side in zip(inputs.pixels.shape[2:], sides, strict=True)
        )
        if tensor.ndim == 4 and tensor.shape[2:] == (height, width):
            return tensor
        seen = self._seen(height * width)
        first = inputs.rest["question_0"].shape[1] + 1  # behind the words and the class token
        if tensor.ndim != 3 or tensor.shape[:2] != (len(inputs.pixels), first + len(seen)):
            raise LayerError(
                f"layer '{layer}': an output of shape {tuple(tensor.shape)} does not hold the "
                f"{height} x {width} patches; explain a layer of the encoder"
            )
        grid = tensor.new_zeros(len(tensor), height * width, tensor.shape[2])
        grid[:, seen.to(grid.device)] = tensor[:, first:]
        return grid.movedim(2, 1).reshape(len(tensor), -1, height, width)

    def _seen(self, patches: int) -> Tensor:
        """The patches that the model looks at, in the encoder's order: all, or so many at most."""
        config: Any = self.model.config
        limit = config.max_image_length
        limited = isinstance(limit, int) and limit >= 0
        return _spread(patches, min(patches, limit) if limited else patches)
