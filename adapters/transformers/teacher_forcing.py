"""Texts put into the mouth of transformers' generative models of pictures (teacher forcing)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcam.adapters.base.captioner import CaptionAdapter, replace_output
from mmcam.adapters.base.captions import PAD, CaptionOutput, Sentence
from mmcam.adapters.transformers.hooks import (
    UnusedOutput,
    add_batch_axis,
    capture_hooks_last,
    record_inputs,
    record_outputs,
    restore_attributes,
    shallow_copy,
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
    """The logits of a given text; `model_type` says how the model is built."""

    tokenizer: TransformersTokenizer
    model_type: ModelType
    pictures: SingleImage
    processor: Any
    positions: int | None = None
    """The longest text that the model can read and say."""

    @property
    def is_two(self) -> bool:
        """Whether one part reads the prompt, or the picture, and another one says the caption."""
        body: Any = self.model.get_submodule(self.model_type.body)
        return bool(body.config.is_encoder_decoder)

    @property
    def _config(self) -> Any:
        return self.model.config

    @property
    def _generation(self) -> Any:
        return generation_config_of(self.model, self.model_type)

    def _image_arguments(self, inputs: Inputs) -> dict[str, Any]:
        """The model's arguments for the pictures, and what it is told to look for in them.

        Raises:
            LabelError: that is too long.
        """
        made = self.pictures.given(inputs)
        reader = getattr(self.processor, "qformer_tokenizer", None)
        if reader is not None:
            words = reader(inputs.rest["prompts"], padding=True, return_tensors="pt")
            length = words["input_ids"].shape[1]
            most = self._config.qformer_config.max_position_embeddings
            if length > most:
                raise LabelError(
                    f"a prompt has {length} tokens, and the queries of {self.name} read {most}; "
                    "give a shorter one"
                )
            for key in ("input_ids", "attention_mask"):
                made[f"qformer_{key}"] = words[key].to(inputs.pixels.device)
        return made

    @property
    def _encoder(self) -> nn.Module:
        return self.model.get_submodule(self.model_type.encoder)

    def encode_images(self, inputs: Inputs) -> Any:
        """What the encoder makes of the pictures, with nothing said."""
        with (
            restore_attributes(self.model),
            record_outputs(self._encoder) as outputs,
            torch.no_grad(),
        ):
            if self.model_type.feed == "interleaved":
                self._features(inputs)
            else:
                self._encoder(**self._image_arguments(inputs))
        return outputs[0]

    def _check_length(self, length: int, what: str) -> None:
        """That a text fits the model.

        Raises:
            LabelError: it does not.
        """
        if self.positions is not None and length > self.positions:
            raise LabelError(
                f"{what} has {length} tokens with all that goes with it, and {self.name} has "
                f"positions for {self.positions}; give a shorter one"
            )

    def _token_types(self, ids: Tensor, lengths: Tensor) -> dict[str, Any]:
        """Which of the tokens are of another kind, where a model type asks: the picture's
        (Qwen), or those behind the prompt (PaliGemma), which ends at `lengths`.
        """
        if self.model_type.pictures == "packed":
            return {"mm_token_type_ids": self._image_token_mask(ids, lengths).int()}
        if self._config.model_type == "paligemma":
            places = torch.arange(ids.shape[1], device=ids.device)
            return {"token_type_ids": (places >= lengths[:, None]).long()}
        return {}

    def forward(self, inputs: Inputs) -> CaptionOutput:
        """The captions of `prepare` put into the model's mouth (teacher forcing)."""
        # Some models write into what their encoder gives them.
        return super().forward(replace(inputs, encoder_output=shallow_copy(inputs.encoder_output)))

    def teacher_force(self, inputs: Inputs, sentences: Sequence[Sentence]) -> CaptionOutput:
        """The logits of these captions, and where the model looked, if that is asked for.

        Raises:
            LabelError: a caption with its prompt is longer than the model's texts may be.
        """
        teacher_force = {
            "cross_attention": self._cross_attention,
            "prefix": self._prefix,
            "interleaved": self._interleaved,
        }
        with ExitStack() as stack:
            stack.enter_context(restore_attributes(self.model))
            stack.enter_context(capture_hooks_last(self.model))
            if self.model_type.pictures == "packed":
                stack.enter_context(add_batch_axis(self._encoder))
            if self.model_type.tower is not None and inputs.encoder_output is not None:
                tower = self.model.get_submodule(self.model_type.tower)
                stack.enter_context(replace_output(tower, UnusedOutput()))
            out = self._last_layer()
            last = [] if out is None else stack.enter_context(record_inputs(out))
            script, logits, attention = teacher_force[self.model_type.feed](inputs, sentences)
        # Of the logits of a whole vocabulary a word needs but one, and its gradient too.
        if out is not None and len(last) == 1 and _makes(out, last[0], logits):
            return CaptionOutput(script.said(last[0]), sentences, (), attention, out)
        return CaptionOutput(script.said(logits), sentences, (), attention)

    def _last_layer(self) -> nn.Linear | None:
        """The last layer, where it is a linear one."""
        model: Any = self.model
        for part in (model, getattr(model, "text_decoder", None)):
            last = None if part is None else part.get_output_embeddings()
            if type(last) is nn.Linear:  # subclasses pack their weights
                return last
        return None

    def _text_batch(self, inputs: Inputs, sentences: Sequence[Sentence], rows: int) -> TextBatch:
        """The text of each row: prompts and captions go round until there are enough of them."""
        prompts: list[Prompt] = inputs.rest["asked"]
        prefixes = [prompt.prefix for prompt in prompts] * (rows // len(prompts))
        said = list(sentences) * (rows // len(sentences))
        texts = [(*p, *s.tokens[:-1]) for p, s in zip(prefixes, said, strict=True)]
        longest = max(map(len, texts))
        self._check_length(longest, f'"{max(said, key=lambda s: len(s.tokens)).text}"')
        ids = torch.tensor([(*text, *[PAD] * (longest - len(text))) for text in texts])
        starts = [len(prefix) - 1 for prefix in prefixes]
        steps = max(len(sentence.tokens) for sentence in said)
        return TextBatch(ids.to(inputs.pixels.device), starts, steps)

    def _cross_attention(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[TextBatch, Tensor, Tensor | None]:
        """A decoder that attends to the encoder's output."""
        hidden = self._encoder(**self._image_arguments(inputs))[0]
        rows = max(len(hidden), len(sentences))
        if rows > len(hidden):
            hidden = hidden.repeat(rows // len(hidden), 1, 1)
        script = self._text_batch(inputs, sentences, rows)
        options = {"use_cache": False, "output_attentions": inputs.output_attentions}
        model: Any = self.model
        if self.is_two:
            output = model(encoder_outputs=(hidden,), decoder_input_ids=script.ids, **options)
        else:
            output = model.text_decoder(
                input_ids=script.ids, encoder_hidden_states=hidden, **options
            )
        attention = None
        if inputs.output_attentions:
            attention = self._looked(output.cross_attentions, script, inputs)
        return script, output.logits, attention

    def _prefix(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[TextBatch, Tensor, Tensor | None]:
        """The picture's tokens before the text."""
        encoder_output = self._encoder(**self._image_arguments(inputs))
        rows = max(len(encoder_output[0]), len(sentences))
        script = self._text_batch(inputs, sentences, rows)
        with substitute_module(self.model, self.model_type.encoder, encoder_output):
            output = self.model(
                input_ids=script.ids,
                **self._image_arguments(inputs),
                use_cache=False,
                logits_to_keep=script.kept,
                output_attentions=inputs.output_attentions,
            )
        attention = None
        if inputs.output_attentions:
            patches = encoder_output[0].shape[1]
            places = torch.arange(patches, device=script.ids.device).repeat(rows, 1)
            attention = self._looked(output.attentions, script, inputs, places)
        return script, output.logits, attention

    def _interleaved(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[TextBatch, Tensor, Tensor | None]:
        """The picture's tokens on their places in the prompt."""
        model: Any = self.model
        encoder_output = self._features(inputs)
        rows = max(len(encoder_output), len(sentences))
        encoder_output = encoder_output * (rows // len(encoder_output))
        script = self._text_batch(inputs, sentences, rows)
        prompts: list[Prompt] = inputs.rest["asked"]
        options: dict[str, Any] = {
            "use_cache": False,
            "output_attentions": inputs.output_attentions,
        }
        if self.is_two:
            sources = [prompt.source for prompt in prompts] * (rows // len(prompts))
            longest = max(map(len, sources))
            ids = script.ids.new_tensor([(*s, *[PAD] * (longest - len(s))) for s in sources])
            lengths = ids.new_tensor([len(source) for source in sources])
            places = torch.arange(longest, device=ids.device)
            options["attention_mask"] = (places < lengths[:, None]).long()
            options["decoder_input_ids"] = script.ids
        else:
            ids = script.ids
            lengths = ids.new_tensor(script.starts) + 1
            options |= self._ordered(ids, lengths, inputs)
        marks = self._image_token_mask(ids, lengths)
        spots = marks.nonzero()[:, 1].view(rows, -1)
        body: Any = model.get_submodule(self.model_type.body)
        if "logits_to_keep" in inspect.signature(body.forward).parameters:
            options["logits_to_keep"] = script.kept
        output = body(inputs_embeds=self._embedded(ids, marks, encoder_output), **options)
        attention = None
        if inputs.output_attentions and self.model_type.has_attention:
            looked = output.cross_attentions if self.is_two else output.attentions
            attention = self._looked(looked, script, inputs, spots)
        return script, output.logits, attention

    def _features(self, inputs: Inputs) -> list[Tensor]:
        """For each picture, or each copy of it, the tokens `[token, channel]` among the text."""
        model: Any = self.model
        given = self._image_arguments(inputs)
        if self.model_type.pictures != "packed":
            return list(model.get_image_features(**given).pooler_output)
        # The model itself does not take more pictures back than it gave.
        grids = given["image_grid_thw"]
        encoder_output = self._encoder(given["pixel_values"], grid_thw=grids).pooler_output
        each = int(grids[0].prod()) // model.model.visual.spatial_merge_size**2
        return list(encoder_output.view(-1, each, encoder_output.shape[1]))

    def _image_token_mask(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Which tokens stand for the picture; what a model says behind its prompt never does."""
        places = torch.arange(ids.shape[1], device=ids.device)
        marks: Tensor = ids == self._config.image_token_id
        return marks & (places < lengths[:, None])

    def _embedded(self, ids: Tensor, marks: Tensor, encoder_output: Sequence[Tensor]) -> Tensor:
        """The embedded tokens `[row, place, channel]`, with the picture's on their places."""
        model: Any = self.model
        words = model.get_input_embeddings()(ids.masked_fill(marks, 0))
        features = torch.cat(list(encoder_output)).to(words)
        spots = marks.flatten().nonzero()[:, 0]
        embedded: Tensor = words.flatten(0, 1).index_copy(0, spots, features)
        return embedded.view_as(words)

    def _ordered(self, ids: Tensor, lengths: Tensor, inputs: Inputs) -> dict[str, Any]:
        """Kinds and positions of tokens, where the model wants them said."""
        kinds = self._token_types(ids, lengths)
        if self.model_type.pictures != "packed":
            return kinds
        model: Any = self.model
        grids = inputs.rest["image_grid_thw"]
        positions, _ = model.model.get_rope_index(
            ids, image_grid_thw=grids.repeat(len(ids) // len(grids), 1), **kinds
        )
        return {"position_ids": positions}

    def _looked(
        self,
        attentions: Sequence[Tensor],
        script: TextBatch,
        inputs: Inputs,
        places: Tensor | None = None,
    ) -> Tensor:
        """Where each token was said from, `[row, step, *grid]`: mean over layers and heads."""
        mean = torch.stack([layer.detach().mean(1) for layer in attentions]).mean(0)
        said = script.said(mean)
        if places is not None:
            said = said.gather(2, places[:, None].expand(-1, said.shape[1], -1))
        tokens = said.flatten(0, 1)[..., None]
        grid = self.pictures.placed(tokens, inputs, self.model_type.lead)
        looked: Tensor = grid.unflatten(0, said.shape[:2])
        return looked

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """A layer of the part that sees as a grid over the input.

        Raises:
            LayerError: it has none, or is a layer of another part.
        """
        stem = layer.partition("#")[0]
        if not any(stem == part or stem.startswith(f"{part}.") for part in self.model_type.image):
            raise LayerError(
                f"layer '{layer}' is not in the part of {self.name} that sees the picture "
                f"({', '.join(self.model_type.image)}); explain a layer of it"
            )
        try:
            return self.pictures.folded(layer, tensor, inputs, self.model_type.prefix)
        except LayerError as error:
            raise LayerError(f"layer '{layer}': {error}") from error


def _makes(out: nn.Linear, states: Tensor, logits: Tensor) -> bool:
    """Whether a layer alone makes these logits of its input: nothing scales or caps them."""
    if states.shape[:2] != logits.shape[:2]:
        return False
    with torch.no_grad():
        made, said = F.linear(states[:1, -1], out.weight, out.bias), logits[:1, -1]
        coarse = states.dtype in (torch.float16, torch.bfloat16)
        return torch.allclose(made.float(), said.float(), rtol=1e-2 if coarse else 1e-4, atol=1e-4)
