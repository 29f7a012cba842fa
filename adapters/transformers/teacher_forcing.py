"""Teacher forcing of given texts for transformers' generative models of pictures."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcam.adapters.base.captioner import CaptionAdapter
from mmcam.adapters.base.captions import PAD, CaptionOutput, Sentence
from mmcam.adapters.base.outputs import record_outputs, replace_output, shallow_copy
from mmcam.adapters.transformers.hooks import (
    UnusedOutput,
    add_batch_axis,
    capture_hooks_last,
    eager_attention,
    record_inputs,
    restore_attributes,
    substitute_module,
)
from mmcam.adapters.transformers.images import SingleImage
from mmcam.adapters.transformers.model_types import ModelType
from mmcam.adapters.transformers.prompts import Prompt, TextBatch, generation_config_of
from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import LabelError, LayerError
from mmcam.types import Inputs


@dataclass(kw_only=True)
class TeacherForcing(CaptionAdapter):
    """A captioning adapter that runs models of transformers on given texts.

    `model_type` describes the model's modules. `processor` is the model's own, and `images` turns
    pictures into the model's input and layer outputs into grids.
    """

    tokenizer: TransformersTokenizer
    model_type: ModelType
    images: SingleImage
    processor: Any
    max_positions: int | None = None
    """The maximum number of tokens of prompt and generated text; None if unlimited."""

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder takes the prompt, or the picture, and a decoder generates the text."""
        language_model: Any = self.model.get_submodule(self.model_type.language_model)
        return bool(language_model.config.is_encoder_decoder)

    @property
    def _config(self) -> Any:
        return self.model.config

    @property
    def _generation_config(self) -> Any:
        return generation_config_of(self.model, self.model_type)

    def _image_arguments(self, inputs: Inputs) -> dict[str, Any]:
        """The model's arguments for the pictures, and for the Q-Former's prompts, if any.

        Raises:
            LabelError: a prompt is too long for the Q-Former.
        """
        arguments = self.images.model_arguments(inputs)
        tokenizer = getattr(self.processor, "qformer_tokenizer", None)
        if tokenizer is not None:
            tokens = tokenizer(inputs.rest["prompts"], padding=True, return_tensors="pt")
            length = tokens["input_ids"].shape[1]
            limit = self._config.qformer_config.max_position_embeddings
            if length > limit:
                raise LabelError(
                    f"a prompt has {length} tokens, and the Q-Former of {self.name} has "
                    f"positions for {limit}; give a shorter one"
                )
            for key in ("input_ids", "attention_mask"):
                arguments[f"qformer_{key}"] = tokens[key].to(inputs.pixels.device)
        return arguments

    @property
    def _encoder(self) -> nn.Module:
        return self.model.get_submodule(self.model_type.encoder)

    @property
    def _text_module(self) -> nn.Module:
        return self.model.get_submodule(self.model_type.text_module)

    def encode_images(self, inputs: Inputs) -> Any:
        """The encoder's output for the pictures, without any text generation.

        Raises:
            LabelError: a prompt is too long for the Q-Former.
        """
        with (
            restore_attributes(self.model),
            record_outputs(self._encoder) as outputs,
            torch.no_grad(),
        ):
            if self.model_type.feed == "interleaved":
                self._image_features(inputs)
            else:
                self._encoder(**self._image_arguments(inputs))
        return outputs[0]

    def _check_length(self, length: int, subject: str) -> None:
        """Check that a text fits the model.

        Raises:
            LabelError: it is too long.
        """
        if self.max_positions is not None and length > self.max_positions:
            raise LabelError(
                f"{subject} has {length} tokens in all, and {self.name} has positions for "
                f"{self.max_positions}; give a shorter one"
            )

    def _token_types(self, ids: Tensor, lengths: Tensor) -> dict[str, Any]:
        """The model's argument for token types, if it takes any.

        It marks the image tokens (Qwen2-VL), or the tokens after the prompt, which ends at
        `lengths` (PaliGemma).
        """
        if self.model_type.image_layout == "packed":
            return {"mm_token_type_ids": self._image_token_mask(ids, lengths).int()}
        if self._config.model_type == "paligemma":
            positions = torch.arange(ids.shape[1], device=ids.device)
            return {"token_type_ids": (positions >= lengths[:, None]).long()}
        return {}

    def forward(self, inputs: Inputs) -> CaptionOutput:
        """The output for the captions of `prepare`, teacher-forced.

        Raises:
            LabelError: as `teacher_force`.
            LayerError: as `teacher_force`.
        """
        # Some models modify the output of their encoder in place.
        inputs = replace(inputs, encoder_output=shallow_copy(inputs.encoder_output))
        return super().forward(inputs)

    def teacher_force(self, inputs: Inputs, sentences: Sequence[Sentence]) -> CaptionOutput:
        """The logits of these captions, and the model's attention if `inputs` request it.

        Raises:
            LabelError: a caption with its prompt is too long for the model, or a prompt for the
                Q-Former.
            LayerError: the attention is requested, and its tokens fit no grid.
        """
        forward = {
            "cross_attention": self._forward_cross_attention,
            "prefix": self._forward_prefix,
            "interleaved": self._forward_interleaved,
        }
        with ExitStack() as stack:
            stack.enter_context(restore_attributes(self.model))
            stack.enter_context(eager_attention(self._text_module))
            stack.enter_context(capture_hooks_last(self.model))
            if self.model_type.image_layout == "packed":
                stack.enter_context(add_batch_axis(self._encoder))
            if self.model_type.vision_tower is not None and inputs.encoder_output is not None:
                vision_tower = self.model.get_submodule(self.model_type.vision_tower)
                stack.enter_context(replace_output(vision_tower, UnusedOutput()))
            out = self._output_layer()
            states = [] if out is None else stack.enter_context(record_inputs(out))
            batch, logits, attention = forward[self.model_type.feed](inputs, sentences)
        # A word and its gradient need one logit, not those of the whole vocabulary.
        if out is not None and len(states) == 1 and _is_linear_output(out, states[0], logits):
            return CaptionOutput(batch.caption_steps(states[0]), sentences, (), attention, out)
        return CaptionOutput(batch.caption_steps(logits), sentences, (), attention)

    def _output_layer(self) -> nn.Linear | None:
        """The output layer of the language model, or None if it is not linear."""
        model: Any = self.model
        for module in (model, getattr(model, "text_decoder", None)):
            layer = None if module is None else module.get_output_embeddings()
            if type(layer) is nn.Linear:  # subclasses may pack their weights
                return layer
        return None

    def _text_batch(self, inputs: Inputs, sentences: Sequence[Sentence], rows: int) -> TextBatch:
        """The text of each row; prompts and captions are repeated to fill `rows`."""
        prompts: list[Prompt] = inputs.rest["prompt_tokens"]
        prefixes = [prompt.prefix for prompt in prompts] * (rows // len(prompts))
        captions = list(sentences) * (rows // len(sentences))
        texts = [
            (*prefix, *caption.tokens[:-1])
            for prefix, caption in zip(prefixes, captions, strict=True)
        ]
        longest = max(map(len, texts))
        self._check_length(longest, f'"{max(captions, key=lambda s: len(s.tokens)).text}"')
        ids = torch.tensor([(*text, *[PAD] * (longest - len(text))) for text in texts])
        starts = [len(prefix) - 1 for prefix in prefixes]
        steps = max(len(caption.tokens) for caption in captions)
        return TextBatch(ids.to(inputs.pixels.device), starts, steps)

    def _forward_cross_attention(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[TextBatch, Tensor, Tensor | None]:
        """Run a decoder that attends to the encoder's output."""
        hidden = self._encoder(**self._image_arguments(inputs))[0]
        rows = max(len(hidden), len(sentences))
        if rows > len(hidden):
            hidden = hidden.repeat(rows // len(hidden), 1, 1)
        batch = self._text_batch(inputs, sentences, rows)
        options = {"use_cache": False, "output_attentions": inputs.output_attentions}
        model: Any = self.model
        if self.is_encoder_decoder:
            output = model(encoder_outputs=(hidden,), decoder_input_ids=batch.ids, **options)
        else:
            output = model.text_decoder(
                input_ids=batch.ids, encoder_hidden_states=hidden, **options
            )
        attention = None
        if inputs.output_attentions:
            attention = self._attention_grid(output.cross_attentions, batch, inputs)
        return batch, output.logits, attention

    def _forward_prefix(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[TextBatch, Tensor, Tensor | None]:
        """Run a model whose image tokens precede the text."""
        encoder_output = self._encoder(**self._image_arguments(inputs))
        rows = max(len(encoder_output[0]), len(sentences))
        batch = self._text_batch(inputs, sentences, rows)
        with substitute_module(self.model, self.model_type.encoder, encoder_output):
            output = self.model(
                input_ids=batch.ids,
                **self._image_arguments(inputs),
                use_cache=False,
                logits_to_keep=batch.logits_to_keep,
                output_attentions=inputs.output_attentions,
            )
        attention = None
        if inputs.output_attentions:
            patches = encoder_output[0].shape[1]
            positions = torch.arange(patches, device=batch.ids.device).repeat(rows, 1)
            attention = self._attention_grid(output.attentions, batch, inputs, positions)
        return batch, output.logits, attention

    def _forward_interleaved(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[TextBatch, Tensor, Tensor | None]:
        """Run a model whose image features replace the image tokens of the prompt."""
        model: Any = self.model
        features = self._image_features(inputs)
        rows = max(len(features), len(sentences))
        features = features * (rows // len(features))
        batch = self._text_batch(inputs, sentences, rows)
        prompts: list[Prompt] = inputs.rest["prompt_tokens"]
        options: dict[str, Any] = {
            "use_cache": False,
            "output_attentions": inputs.output_attentions,
        }
        if self.is_encoder_decoder:
            sources = [prompt.source for prompt in prompts] * (rows // len(prompts))
            longest = max(map(len, sources))
            ids = batch.ids.new_tensor([(*s, *[PAD] * (longest - len(s))) for s in sources])
            lengths = ids.new_tensor([len(source) for source in sources])
            positions = torch.arange(longest, device=ids.device)
            options["attention_mask"] = (positions < lengths[:, None]).long()
            options["decoder_input_ids"] = batch.ids
        else:
            ids = batch.ids
            lengths = ids.new_tensor(batch.starts) + 1
            options |= self._positions_and_types(ids, lengths, inputs)
        mask = self._image_token_mask(ids, lengths)
        image_positions = mask.nonzero()[:, 1].view(rows, -1)
        language_model: Any = model.get_submodule(self.model_type.language_model)
        if "logits_to_keep" in inspect.signature(language_model.forward).parameters:
            options["logits_to_keep"] = batch.logits_to_keep
        output = language_model(inputs_embeds=self._embed(ids, mask, features), **options)
        attention = None
        if inputs.output_attentions and self.model_type.has_attention:
            weights = output.cross_attentions if self.is_encoder_decoder else output.attentions
            attention = self._attention_grid(weights, batch, inputs, image_positions)
        return batch, output.logits, attention

    def _image_features(self, inputs: Inputs) -> list[Tensor]:
        """The image features `[token, channel]` of each picture, or of each of its copies."""
        model: Any = self.model
        arguments = self._image_arguments(inputs)
        if self.model_type.image_layout != "packed":
            return list(model.get_image_features(**arguments).pooler_output)
        # The model's own method fails if the reused output holds more pictures than `grids`.
        grids = arguments["image_grid_thw"]
        features = self._encoder(arguments["pixel_values"], grid_thw=grids).pooler_output
        length = int(grids[0].prod()) // model.model.visual.spatial_merge_size**2
        return list(features.view(-1, length, features.shape[1]))

    def _image_token_mask(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Which tokens stand for the picture; tokens after the prompt never do."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        mask: Tensor = ids == self._config.image_token_id
        return mask & (positions < lengths[:, None])

    def _embed(self, ids: Tensor, mask: Tensor, features: Sequence[Tensor]) -> Tensor:
        """The embedded tokens `[row, position, channel]`, image features where `mask` is true."""
        model: Any = self.model
        words = model.get_input_embeddings()(ids.masked_fill(mask, 0))
        image_tokens = torch.cat(list(features)).to(words)
        indices = mask.flatten().nonzero()[:, 0]
        embedded: Tensor = words.flatten(0, 1).index_copy(0, indices, image_tokens)
        return embedded.view_as(words)

    def _positions_and_types(self, ids: Tensor, lengths: Tensor, inputs: Inputs) -> dict[str, Any]:
        """The model's arguments for token positions and token types, if it takes any."""
        token_types = self._token_types(ids, lengths)
        if self.model_type.image_layout != "packed":
            return token_types
        model: Any = self.model
        grids = inputs.rest["image_grid_thw"]
        positions, _ = model.model.get_rope_index(
            ids, image_grid_thw=grids.repeat(len(ids) // len(grids), 1), **token_types
        )
        return {"position_ids": positions}

    def _attention_grid(
        self,
        attentions: Sequence[Tensor],
        batch: TextBatch,
        inputs: Inputs,
        positions: Tensor | None = None,
    ) -> Tensor:
        """The attention of each caption token, `[row, step, *grid]`: mean over layers and heads."""
        mean = torch.stack([layer.detach().mean(1) for layer in attentions]).mean(0)
        weights = batch.caption_steps(mean)
        if positions is not None:
            weights = weights.gather(2, positions[:, None].expand(-1, weights.shape[1], -1))
        tokens = weights.flatten(0, 1)[..., None]
        grid = self.images.attention_to_grid(tokens, inputs, self.model_type.attended_prefix)
        attention: Tensor = grid.unflatten(0, weights.shape[:2])
        return attention

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """The output of a vision layer as a grid over the input.

        Raises:
            LayerError: the layer has no grid, or is not a vision layer.
        """
        path = layer.partition("#")[0]
        modules = self.model_type.vision_modules
        if not any(path == module or path.startswith(f"{module}.") for module in modules):
            raise LayerError(
                f"layer '{layer}' is not in the vision modules of {self.name} "
                f"({', '.join(modules)}); explain a layer of these"
            )
        try:
            return self.images.layer_to_grid(layer, tensor, inputs, self.model_type.prefix)
        except LayerError as error:
            raise LayerError(f"layer '{layer}': {error}") from error


def _is_linear_output(out: nn.Linear, states: Tensor, logits: Tensor) -> bool:
    """Whether `logits` are exactly the layer's output for `states`, neither scaled nor capped."""
    if states.shape[:2] != logits.shape[:2]:
        return False
    with torch.no_grad():
        expected, actual = F.linear(states[:1, -1], out.weight, out.bias), logits[:1, -1]
        half = states.dtype in (torch.float16, torch.bfloat16)
        rtol = 1e-2 if half else 1e-4
        return torch.allclose(expected.float(), actual.float(), rtol=rtol, atol=1e-4)
