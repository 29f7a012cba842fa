"""ViLT for VQA: one encoder for words and patches, and a classifier of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmcam.adapters.base.answerer import AnswerClassifier, AnswerOutput, EncodedQuestion
from mmcam.adapters.base.measured_box import Box
from mmcam.adapters.base.preprocess import Preprocess, Transform
from mmcam.adapters.base.recipe import Recipe, layer_from_path
from mmcam.adapters.transformers.loading import (
    LoadedModel,
    build_model,
    load_processor,
    load_weights,
    processor_errors,
)
from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import LabelError, LayerError, ModelError
from mmcam.tasks.words import Word, align
from mmcam.types import Inputs, Sample

ARCHITECTURE = "ViltForQuestionAnswering"
DEFAULT_LAYER = "vilt.encoder.layer.-1.layernorm_before"
"""The last layer whose patches affect the answer; after it only the class token does."""
WORD_EMBEDDINGS = "vilt.embeddings.text_embeddings.word_embeddings"


def read_vilt(recipe: Recipe, config: Any) -> LoadedModel:
    """A ViLT for VQA, with its own processor.

    Raises:
        ModelError: no processor, or a ViLT for another task.
        WeightsError: the weights do not fit, are missing or cannot be downloaded.
        MissingExtra: the processor needs a package that is not installed.
    """
    from transformers import ViltForQuestionAnswering

    architectures = config.architectures or [ARCHITECTURE]
    if ARCHITECTURE not in architectures:
        raise ModelError(
            f"'{recipe.name}' is a {architectures[0]}, which answers no questions; choose a "
            f"checkpoint of {ARCHITECTURE}"
        )
    processor = load_processor(recipe, config)
    model = build_model(recipe, ViltForQuestionAnswering, config)
    return LoadedModel(model, processor, load_weights(recipe, model, config))


def adapt_vilt(recipe: Recipe, loaded: LoadedModel) -> ViltAdapter:
    """The adapter of a ViLT for VQA.

    Raises:
        ModelError: wrong preprocessing.
    """
    model: Any = loaded.model
    config, processor = model.config, loaded.processor
    labels = tuple(name for _, name in sorted((config.id2label or {}).items()))
    has_names = not all(name.startswith("LABEL_") for name in labels)
    tokenizer = TransformersTokenizer(
        tokenizer=processor.tokenizer, name=recipe.title, end_tokens=()
    )
    return ViltAdapter(
        name=recipe.title,
        model=model,
        preprocess=FullImage(partial(_pixels, recipe.title, processor.image_processor))
        if recipe.preprocess is None
        else Preprocess.from_dict(recipe.preprocess),
        labels=recipe.labels or (labels if has_names else ()),
        layers=recipe.layers or (layer_from_path(model, DEFAULT_LAYER),),
        weights=loaded.weights,
        encode_question=partial(_tokenize_question, tokenizer, config.max_position_embeddings),
        word_embedding=WORD_EMBEDDINGS,
        pads_questions=True,
        gradient_strategy="batched",
    )


class FullImage(Transform):
    """An image processor that resizes the whole picture, without a crop or padding."""

    def takes_as_given(self, source: Any) -> bool:
        """False: the processor takes RGB images."""
        return False

    def _measure(self, size: tuple[int, int], shape: tuple[int, ...], source: Any) -> Box:
        height, width = size
        return 0.0, 0.0, float(width), float(height)


def _pixels(name: str, processor: Any, image: Any) -> Tensor:
    with processor_errors(name, image.height, image.width):
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels


def _tokenize_question(
    question_tokenizer: TransformersTokenizer, max_positions: int, text: str
) -> EncodedQuestion:
    """A question between its two special tokens, truncated to `max_positions` tokens.

    Raises:
        LabelError: the tokenizer drops all characters of the question.
    """
    tokens, offsets = question_tokenizer.tokenize(text)
    if not tokens:
        raise LabelError(
            f"no word of the question {text!r} is in the vocabulary of {question_tokenizer.name}; "
            "use the words and the language of its training data"
        )
    kept = tokens[: max_positions - 2]
    tokenizer = question_tokenizer.tokenizer
    ids = torch.tensor([tokenizer.cls_token_id, *kept, tokenizer.sep_token_id])
    words = align(text, offsets[: len(kept)])
    unknown = [w for w in words if tokenizer.unk_token_id in kept[w.start : w.stop]]
    return EncodedQuestion(
        arguments=(ids, torch.ones_like(ids)),
        words=tuple(Word(word.text, word.start + 1, word.stop + 1) for word in words),
        unknown=tuple(word.text for word in unknown if not word.is_mark),
        unread=len(align(text, offsets)) - len(words),
    )


class OrderedSampling(TorchFunctionMode):
    """A context in which `torch.multinomial` returns evenly spaced indices in ascending order.

    Otherwise ViLT samples its patches without replacement, in a new random order in every forward
    pass, so that the place of a patch in the encoder's output is unknown. The order does not affect
    the answers.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is not torch.multinomial:
            return function(*args, **(kwargs or {}))
        weights, count = args
        return _evenly_spaced(len(weights), int(count)).to(weights.device)


def _evenly_spaced(size: int, count: int) -> Tensor:
    """`count` evenly spaced indices below `size`, in ascending order."""
    return torch.arange(count) * size // count


@dataclass
class ViltAdapter(AnswerClassifier):
    """`ViltForQuestionAnswering`. Each answer has an independent probability (sigmoid)."""

    uses_layouts: ClassVar[bool] = False

    @property
    def batch(self) -> int:
        """1, because pictures keep their proportions, so their inputs differ in size."""
        return 1

    def prepare_pixels(self, samples: Sequence[Sample]) -> Inputs:
        """The pictures preprocessed and stacked, with a mask of ones.

        Raises:
            InputError: a clip, a picture that the processor does not take, or pictures of different
                proportions.
            ModelError: as `Transform.__call__`.
        """
        inputs = super().prepare_pixels(samples)
        mask = inputs.pixels.new_ones(inputs.pixels[:, 0].shape, dtype=torch.long)
        return replace(inputs, rest={"pixel_mask": mask})

    def forward(self, inputs: Inputs) -> AnswerOutput:
        """The logits of all answers, with the patches in raster order."""
        model: Any = self.model
        with OrderedSampling():
            output = model(
                input_ids=inputs.rest["question_0"],
                attention_mask=inputs.rest["question_1"],
                pixel_values=inputs.pixels,
                pixel_mask=inputs.rest["pixel_mask"],
            )
        return AnswerOutput(output.logits, attention=None)

    def log_probs(self, output: AnswerOutput) -> Float[Tensor, "row answer"]:
        """The log-probability of every answer, independent of the others."""
        return nn.functional.logsigmoid(output.logits.float())

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """The patches of a layer in raster order; zero for patches that the model does not sample.

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
        sampled = self._sampled_patches(height * width)
        # The patches come after the words and the picture's class token.
        first = inputs.rest["question_0"].shape[1] + 1
        if tensor.ndim != 3 or tensor.shape[:2] != (len(inputs.pixels), first + len(sampled)):
            raise LayerError(
                f"layer '{layer}': an output of shape {tuple(tensor.shape)} does not hold the "
                f"{height} x {width} patches; explain a layer of the encoder"
            )
        grid = tensor.new_zeros(len(tensor), height * width, tensor.shape[2])
        grid[:, sampled.to(grid.device)] = tensor[:, first:]
        return grid.movedim(2, 1).reshape(len(tensor), -1, height, width)

    def _sampled_patches(self, patches: int) -> Tensor:
        """Indices of the sampled patches (at most `max_image_length`), in the encoder's order."""
        config: Any = self.model.config
        limit = config.max_image_length
        is_limited = isinstance(limit, int) and limit >= 0
        return _evenly_spaced(patches, min(patches, limit) if is_limited else patches)
