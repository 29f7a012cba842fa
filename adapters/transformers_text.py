"""The adapter of transformers' generative models of pictures."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmcam.adapters.captions import PAD, Sentence, Spoken
from mmcam.adapters.speaker import Speaker, replaying
from mmcam.adapters.transformers_language import Tokens
from mmcam.adapters.transformers_pictures import Plain, layout, stacked
from mmcam.adapters.transformers_prompts import (
    Prompt,
    Script,
    among,
    context_of,
    generation_of,
)
from mmcam.adapters.transformers_state import (
    Hollow,
    behind,
    every,
    fresh,
    joined,
    left_as_found,
    lifted,
    noted,
    standing_in,
)
from mmcam.adapters.transformers_voices import Voice
from mmcam.errors import InputError, LabelError, LayerError, ModelError
from mmcam.tasks import Caption
from mmcam.types import Inputs, Sample


@dataclass(kw_only=True)
class TransformersSpeaker(Speaker):
    """A model that `generate`s text about a picture; `voice` says what its type is like."""

    language: Tokens
    voice: Voice
    pictures: Plain
    processor: Any
    positions: int | None = None
    """The longest text that the model can read and say."""

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """As `Speaker.prepare`; a given caption is spelled as it follows the prompt."""
        if not isinstance(task, Caption) or task.prompt is None or self.is_two:
            return super().prepare(samples, task)
        context, gap = context_of(self.processor, self.voice, task.prompt)
        after = replace(self, language=replace(self.language, context=context, gap=gap))
        return super(TransformersSpeaker, after).prepare(samples, task)

    def pixels(self, samples: Sequence[Sample], task: Caption) -> Inputs:
        """The pictures, preprocessed, with the prompt for each.

        Raises:
            LabelError: a prompt for a model that takes none.
            InputError: a clip, or pictures whose inputs differ in shape.
        """
        if task.prompt is not None and not self.voice.takes_prompt:
            raise LabelError(
                f"{self.name} takes no prompt ('{task.prompt}'); leave it out, or choose a model "
                "that follows instructions (mmcam list models)"
            )
        prompt = self.voice.prompt if task.prompt is None else task.prompt
        return self.ask(samples, [prompt] * len(samples))

    def ask(self, samples: Sequence[Sample], prompts: Sequence[str]) -> Inputs:
        """The pictures, preprocessed, each with a prompt of its own.

        Raises:
            InputError: a clip, or pictures whose inputs differ in shape.
        """
        for sample in samples:
            if sample.pixels.ndim == 4:
                raise InputError(
                    f"'{sample.id}' is a clip and {self.name} is a model of pictures; choose "
                    "another model (mmcam list models)"
                )
        taken = [self.pictures.take(sample) for sample in samples]
        shapes = {(tuple(t.pixels.shape), layout(t.facts)) for t in taken}
        if len(shapes) > 1:
            sizes = sorted({shape for shape, _ in shapes})
            raise InputError(
                f"{self.name} makes inputs of different shapes {sizes} of these pictures, which "
                "cannot be one batch; explain them one by one (batch=1)"
            )
        parameter = next(self.model.parameters())
        facts = {
            key: value.to(parameter.device) if isinstance(value, Tensor) else value
            for key, value in stacked([t.facts for t in taken]).items()
        }
        asked = [
            self._prompt(sample, prompt) for sample, prompt in zip(samples, prompts, strict=True)
        ]
        return Inputs(
            pixels=torch.stack([t.pixels for t in taken]).to(parameter),
            placements=tuple(t.placement for t in taken),
            rest={"prompts": list(prompts), "asked": asked, **facts},
        )

    def _prompt(self, sample: Sample, prompt: str) -> Prompt:
        """A prompt as tokens, with those of the picture where the model has them among its text."""
        tokenizer = self.processor.tokenizer
        if self.voice.feed != "among":
            start = self._start
            words = tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else []
            return Prompt((start, *words))
        ids = among(self.processor, self._config, self.voice, sample.pixels, prompt)
        if not self.is_two:
            return Prompt(tuple(ids))
        starts = (self._generation.decoder_start_token_id, self._generation.forced_bos_token_id)
        return Prompt(tuple(token for token in starts if token is not None), tuple(ids))

    @property
    def is_two(self) -> bool:
        """Whether one part reads the prompt, or the picture, and another one says the caption."""
        body: Any = self.model.get_submodule(self.voice.body)
        return bool(body.config.is_encoder_decoder)

    @property
    def _config(self) -> Any:
        return self.model.config

    @property
    def _generation(self) -> Any:
        return generation_of(self.model, self.voice)

    def generate(self, inputs: Inputs, task: Caption) -> tuple[list[Sentence], Any]:
        """What the model says of each picture, and the encoder's output."""
        prompts: list[Prompt] = inputs.rest["asked"]
        lengths = {(len(prompt.prefix), len(prompt.source)) for prompt in prompts}
        rows = len(prompts)
        groups = [slice(0, rows)] if len(lengths) == 1 else [slice(i, i + 1) for i in range(rows)]
        said: list[Sentence] = []
        seen: list[Any] = []
        for some in groups:
            one = replace(
                inputs,
                pixels=inputs.pixels[some],
                placements=inputs.placements[some],
                rest={key: value[some] for key, value in inputs.rest.items()},
            )
            with left_as_found(self.model), noted(self._encoder) as outputs:
                said += self._said(one, task)
            # Where pictures are no arguments of their own, there is one for each beam.
            times = task.beam if self.voice.feed == "before" else 1
            seen.append(every(times, outputs[0], times * len(one.pixels)))
        return said, joined(seen)

    def _given(self, inputs: Inputs) -> dict[str, Any]:
        """The model's arguments for the pictures, and what it is told to look for in them."""
        made = self.pictures.given(inputs)
        reader = getattr(self.processor, "qformer_tokenizer", None)
        if reader is not None:
            words = reader(inputs.rest["prompts"], padding=True, return_tensors="pt")
            for key in ("input_ids", "attention_mask"):
                made[f"qformer_{key}"] = words[key].to(inputs.pixels.device)
        return made

    @property
    def _encoder(self) -> nn.Module:
        return self.model.get_submodule(self.voice.encoder)

    def _said(self, inputs: Inputs, task: Caption) -> list[Sentence]:
        """The captions for pictures whose prompts are equally long."""
        prompts: list[Prompt] = inputs.rest["asked"]
        device = inputs.pixels.device
        prefix = torch.tensor([prompt.prefix for prompt in prompts], device=device)
        room = task.limit + 1
        if self.positions is not None:
            self._check_length(prefix.shape[1] + 1, "its prompt")
            room = min(room, self.positions - prefix.shape[1])
        arguments: dict[str, Any] = {}
        if self.voice.feed == "among":
            source = [prompt.source or prompt.prefix for prompt in prompts]
            arguments["input_ids"] = torch.tensor(source, device=device)
            arguments["attention_mask"] = torch.ones_like(arguments["input_ids"])
            ids = arguments["input_ids"]
            arguments |= self._kinds(ids, ids.new_tensor([ids.shape[1]] * len(ids)))
        elif self.voice.feed == "before":
            arguments["input_ids"] = prefix
        elif self.voice.takes_prompt:  # BLIP's drops the last token of its prompt
            arguments["input_ids"] = torch.cat([prefix, prefix[:, :1]], 1)
        if self.voice.feed != "across" or self.is_two:  # BLIP's brings its own
            arguments["eos_token_id"] = list(self.language.ends)
            arguments["pad_token_id"] = self._pad
        model: Any = self.model
        made = model.generate(
            **self._given(inputs),
            **arguments,
            num_beams=task.beam,
            num_return_sequences=1,
            max_new_tokens=room,
            max_length=None,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        first = prefix.shape[1]
        if not torch.equal(made[:, :first], prefix):
            first = 0
        return [
            self.language.decode(self._ended(row, task.limit)) for row in made[:, first:].tolist()
        ]

    @property
    def _start(self) -> int:
        """The token before everything that a decoder says.

        Raises:
            ModelError: its configuration names none.
        """
        first = self._generation.decoder_start_token_id if self.is_two else None
        for found in (first, self._generation.bos_token_id, self.processor.tokenizer.cls_token_id):
            if found is not None:
                return int(found)
        raise ModelError(
            f"the configuration of {self.name} names no token that begins a caption; set "
            "decoder_start_token_id in its generation_config.json"
        )

    @property
    def _pad(self) -> int:
        pad = self._generation.pad_token_id
        return self.language.ends[0] if pad is None else int(pad)

    def _ended(self, tokens: list[int], limit: int) -> list[int]:
        """The tokens up to the first that ends a caption; cut off at the limit without one."""
        for place, token in enumerate(tokens):
            if token in self.language.ends:
                return tokens[: place + 1]
        return tokens[:limit]

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

    def _kinds(self, ids: Tensor, lengths: Tensor) -> dict[str, Any]:
        """Which of the tokens are of another kind, where a model type asks: the picture's
        (Qwen), or those behind the prompt (PaliGemma), which ends at `lengths`.
        """
        if self.voice.pictures == "packed":
            return {"mm_token_type_ids": self._marks(ids, lengths).int()}
        if self._config.model_type == "paligemma":
            places = torch.arange(ids.shape[1], device=ids.device)
            return {"token_type_ids": (places >= lengths[:, None]).long()}
        return {}

    def forward(self, inputs: Inputs) -> Spoken:
        """The captions of `prepare` put into the model's mouth (teacher forcing)."""
        # Some models write into what their encoder gives them.
        return super().forward(replace(inputs, seen=fresh(inputs.seen)))

    def tell(self, inputs: Inputs, sentences: Sequence[Sentence]) -> Spoken:
        """The logits of these captions, and where the model looked, if that is asked for.

        Raises:
            LabelError: a caption with its prompt is longer than the model's texts may be.
        """
        tell = {"across": self._across, "before": self._before, "among": self._among_text}
        with ExitStack() as stack:
            stack.enter_context(left_as_found(self.model))
            stack.enter_context(behind(self.model))
            if self.voice.pictures == "packed":
                stack.enter_context(lifted(self._encoder))
            if self.voice.tower is not None and inputs.seen is not None:
                tower = self.model.get_submodule(self.voice.tower)
                stack.enter_context(replaying(tower, Hollow()))
            logits, attention = tell[self.voice.feed](inputs, sentences)
        return Spoken(logits, sentences, (), attention)

    def _script(self, inputs: Inputs, sentences: Sequence[Sentence], rows: int) -> Script:
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
        return Script(ids.to(inputs.pixels.device), starts, steps)

    def _across(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[Tensor, Tensor | None]:
        """A decoder that attends to the encoder's output."""
        hidden = self._encoder(**self._given(inputs))[0]
        rows = max(len(hidden), len(sentences))
        hidden = hidden.repeat(rows // len(hidden), 1, 1)
        script = self._script(inputs, sentences, rows)
        options = {"use_cache": False, "output_attentions": inputs.attend}
        model: Any = self.model
        if self.is_two:
            output = model(encoder_outputs=(hidden,), decoder_input_ids=script.ids, **options)
        else:
            output = model.text_decoder(
                input_ids=script.ids, encoder_hidden_states=hidden, **options
            )
        attention = None
        if inputs.attend:
            attention = self._looked(output.cross_attentions, script, inputs)
        return script.said(output.logits), attention

    def _before(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[Tensor, Tensor | None]:
        """The picture's tokens before the text."""
        seen = self._encoder(**self._given(inputs))
        rows = max(len(seen[0]), len(sentences))
        script = self._script(inputs, sentences, rows)
        with standing_in(self.model, self.voice.encoder, seen):
            output = self.model(
                input_ids=script.ids,
                **self._given(inputs),
                use_cache=False,
                logits_to_keep=script.kept,
                output_attentions=inputs.attend,
            )
        attention = None
        if inputs.attend:
            patches = seen[0].shape[1]
            places = torch.arange(patches, device=script.ids.device).repeat(rows, 1)
            attention = self._looked(output.attentions, script, inputs, places)
        return script.said(output.logits), attention

    def _among_text(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[Tensor, Tensor | None]:
        """The picture's tokens on their places in the prompt."""
        model: Any = self.model
        seen = self._features(inputs)
        rows = max(len(seen), len(sentences))
        seen = seen * (rows // len(seen))
        script = self._script(inputs, sentences, rows)
        prompts: list[Prompt] = inputs.rest["asked"]
        options: dict[str, Any] = {"use_cache": False, "output_attentions": inputs.attend}
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
        marks = self._marks(ids, lengths)
        spots = marks.nonzero()[:, 1].view(rows, -1)
        body: Any = model.get_submodule(self.voice.body)
        if "logits_to_keep" in inspect.signature(body.forward).parameters:
            options["logits_to_keep"] = script.kept
        output = body(inputs_embeds=self._embedded(ids, marks, seen), **options)
        attention = None
        if inputs.attend and self.voice.attends:
            looked = output.cross_attentions if self.is_two else output.attentions
            attention = self._looked(looked, script, inputs, spots)
        return script.said(output.logits), attention

    def _features(self, inputs: Inputs) -> list[Tensor]:
        """For each picture, or each copy of it, the tokens `[token, channel]` among the text."""
        model: Any = self.model
        given = self._given(inputs)
        if self.voice.pictures != "packed":
            return list(model.get_image_features(**given).pooler_output)
        # The model itself does not take more pictures back than it gave.
        grids = given["image_grid_thw"]
        seen = self._encoder(given["pixel_values"], grid_thw=grids).pooler_output
        each = int(grids[0].prod()) // model.model.visual.spatial_merge_size**2
        return list(seen.view(-1, each, seen.shape[1]))

    def _marks(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Which tokens stand for the picture; what a model says behind its prompt never does."""
        places = torch.arange(ids.shape[1], device=ids.device)
        marks: Tensor = ids == self._config.image_token_id
        return marks & (places < lengths[:, None])

    def _embedded(self, ids: Tensor, marks: Tensor, seen: Sequence[Tensor]) -> Tensor:
        """The embedded tokens `[row, place, channel]`, with the picture's on their places."""
        model: Any = self.model
        words = model.get_input_embeddings()(ids.masked_fill(marks, 0))
        features = torch.cat(list(seen)).to(words)
        spots = marks.flatten().nonzero()[:, 0]
        embedded: Tensor = words.flatten(0, 1).index_copy(0, spots, features)
        return embedded.view_as(words)

    def _ordered(self, ids: Tensor, lengths: Tensor, inputs: Inputs) -> dict[str, Any]:
        """Kinds and positions of tokens, where the model wants them said."""
        kinds = self._kinds(ids, lengths)
        if self.voice.pictures != "packed":
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
        script: Script,
        inputs: Inputs,
        places: Tensor | None = None,
    ) -> Tensor:
        """Where each token was said from, `[row, step, *grid]`: mean over layers and heads."""
        mean = torch.stack([layer.detach().mean(1) for layer in attentions]).mean(0)
        said = script.said(mean)
        if places is not None:
            said = said.gather(2, places[:, None].expand(-1, said.shape[1], -1))
        tokens = said.flatten(0, 1)[..., None]
        grid = self.pictures.placed(tokens, inputs, self.voice.lead)
        looked: Tensor = grid.unflatten(0, said.shape[:2])
        return looked

    def grid(self, layer: str, tensor: Tensor, inputs: Inputs) -> Tensor:
        """A layer of the part that sees as a grid over the input.

        Raises:
            LayerError: it has none, or is a layer of another part.
        """
        stem = layer.partition("#")[0]
        if not any(stem == part or stem.startswith(f"{part}.") for part in self.voice.image):
            raise LayerError(
                f"layer '{layer}' is not in the part of {self.name} that sees the picture "
                f"({', '.join(self.voice.image)}); explain a layer of it"
            )
        try:
            return self.pictures.folded(layer, tensor, inputs, self.voice.prefix)
        except LayerError as error:
            raise LayerError(f"layer '{layer}': {error}") from error
