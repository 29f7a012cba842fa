"""The adapter of transformers' generative models of pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmcam.adapters.base import captions
from mmcam.adapters.base.captions import CaptionOutput, Sentence
from mmcam.adapters.transformers.hooks import (
    concatenate,
    every_nth_row,
    record_outputs,
    restore_attributes,
)
from mmcam.adapters.transformers.images import layout, stacked
from mmcam.adapters.transformers.prompts import Prompt, among, caption_context
from mmcam.adapters.transformers.questions import (
    AnswerSet,
    PromptQuestion,
    read,
    reply,
    spread,
    wrapped,
)
from mmcam.adapters.transformers.teacher_forcing import TeacherForcing
from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import InputError, LabelError, ModelError
from mmcam.tasks import Answers, Caption
from mmcam.types import Inputs, Sample, Target

LIMIT = 20
"""How many tokens an answer of the model's own may have."""


@dataclass(kw_only=True)
class GenerativeAdapter(TeacherForcing):
    """A model that `generate`s text about a picture: captions, and answers to questions."""

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """As `CaptionAdapter.prepare`; a given text is spelled as it follows the prompt.

        With answers, each is a row: a picture has as many rows as it has answers.
        """
        if isinstance(task, Answers):
            return self._answering(samples, task)
        if not isinstance(task, Caption) or task.prompt is None:
            return super().prepare(samples, task)
        after = replace(self, tokenizer=self._behind(task.prompt))
        return super(GenerativeAdapter, after).prepare(samples, task)

    def _behind(self, prompt: str) -> TransformersTokenizer:
        """The language of what is said behind a prompt."""
        if self.is_two:
            return self.tokenizer
        context, gap = caption_context(self.processor, self.model_type, prompt)
        return replace(self.tokenizer, context=context, gap=gap)

    def _answering(self, samples: Sequence[Sample], task: Answers) -> Inputs:
        """A row for each answer that is given, or that the model says by itself.

        Raises:
            LabelError: a model of captions alone, no question, one that the model cannot read, or
                an answer that it cannot say.
        """
        texts = [task.question_for(sample.text, sample.id) for sample in samples]
        prompts = [wrapped(self.name, self.processor, self.model_type, text) for text in texts]
        inputs = self.ask(samples, prompts)
        asked = [
            self._read(text, prompt)
            for text, prompt in zip(texts, inputs.rest["asked"], strict=True)
        ]
        facts = {"questions": asked, "words": [question.words for question in asked]}
        inputs = replace(inputs, rest={**inputs.rest, **facts})
        replies = [self._reply(inputs.row(place), task) for place in range(len(samples))]
        return spread(inputs, replies)

    def _read(self, question: str, prompt: Prompt) -> PromptQuestion:
        """A question as the model reads it.

        Raises:
            LabelError: it is too long, or the model knows no word of it.
        """
        short = f'the question "{textwrap.shorten(question, 60, placeholder=" ...")}"'
        self._check_length(max(len(prompt.prefix) + 1, len(prompt.source)), short)
        return read(
            self.tokenizer,
            self.processor,
            self.model_type,
            question,
            prompt.source or prompt.prefix,
        )

    def _reply(self, one: Inputs, task: Answers) -> AnswerSet:
        """The answers for a batch of one."""
        after = replace(self, tokenizer=self._behind(one.rest["prompts"][0]))
        if task.answers is not None:
            return reply((), self.encode_images(one), task, after.tokenizer)
        with (
            restore_attributes(self.model),
            record_outputs(self._encoder) as outputs,
            torch.no_grad(),
        ):
            own = after._said(one, num_beams=task.top, max_new_tokens=LIMIT, count=task.top)
        times = task.top if self.model_type.feed == "prefix" else 1
        first = {sentence.text: sentence for sentence in reversed(own)}
        own = [sentence for sentence in own if first[sentence.text] is sentence]
        return reply(own, every_nth_row(times, outputs[0], times), task, after.tokenizer)

    def pixels(self, samples: Sequence[Sample], task: Caption) -> Inputs:
        """The pictures, preprocessed, with the prompt for each.

        Raises:
            LabelError: a prompt for a model that takes none.
            InputError: a clip, or pictures whose inputs differ in shape.
        """
        if task.prompt is not None and not self.model_type.takes_prompt:
            raise LabelError(
                f"{self.name} takes no prompt ('{task.prompt}'); leave it out, or choose a model "
                "that follows instructions (mmcam list models)"
            )
        prompt = self.model_type.prompt if task.prompt is None else task.prompt
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
        if self.model_type.feed != "interleaved":
            start = self._start
            words = tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else []
            return Prompt((start, *words))
        ids = among(self.processor, self._config, self.model_type, sample.pixels, prompt)
        if not self.is_two:
            return Prompt(tuple(ids))
        starts = (self._generation.decoder_start_token_id, self._generation.forced_bos_token_id)
        return Prompt(tuple(token for token in starts if token is not None), tuple(ids))

    def generate(self, inputs: Inputs, task: Caption) -> tuple[list[Sentence], Any]:
        """What the model says of each picture, and the encoder's output."""
        prompts: list[Prompt] = inputs.rest["asked"]
        lengths = {(len(prompt.prefix), len(prompt.source)) for prompt in prompts}
        rows = len(prompts)
        groups = [slice(0, rows)] if len(lengths) == 1 else [slice(i, i + 1) for i in range(rows)]
        said: list[Sentence] = []
        encoder_output: list[Any] = []
        for some in groups:
            one = replace(
                inputs,
                pixels=inputs.pixels[some],
                placements=inputs.placements[some],
                rest={key: value[some] for key, value in inputs.rest.items()},
            )
            with restore_attributes(self.model), record_outputs(self._encoder) as outputs:
                said += self._said(
                    one, num_beams=task.num_beams, max_new_tokens=task.max_new_tokens
                )
            # Where pictures are no arguments of their own, there is one for each beam.
            times = task.num_beams if self.model_type.feed == "prefix" else 1
            encoder_output.append(every_nth_row(times, outputs[0], times * len(one.pixels)))
        return said, concatenate(encoder_output)

    def _said(
        self, inputs: Inputs, *, num_beams: int, max_new_tokens: int, count: int = 1
    ) -> list[Sentence]:
        """The `count` best texts for each of some pictures whose prompts are equally long."""
        prompts: list[Prompt] = inputs.rest["asked"]
        device = inputs.pixels.device
        prefix = torch.tensor([prompt.prefix for prompt in prompts], device=device)
        room = max_new_tokens + 1
        if self.positions is not None:
            self._check_length(prefix.shape[1] + 1, "its prompt")
            room = min(room, self.positions - prefix.shape[1])
        model: Any = self.model
        made = model.generate(
            **self._image_arguments(inputs),
            **self._starting(prompts, prefix),
            num_beams=num_beams,
            num_return_sequences=count,
            max_new_tokens=room,
            max_length=None,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        first = prefix.shape[1]
        if not torch.equal(made[:, :first], prefix.repeat_interleave(count, 0)):
            first = 0
        return [
            self.tokenizer.decode(self._ended(row, max_new_tokens))
            for row in made[:, first:].tolist()
        ]

    def _starting(self, prompts: Sequence[Prompt], prefix: Tensor) -> dict[str, Any]:
        """What `generate` is given beside the pictures, for equally long prompts."""
        arguments: dict[str, Any] = {}
        if self.model_type.feed == "interleaved":
            source = [prompt.source or prompt.prefix for prompt in prompts]
            arguments["input_ids"] = prefix.new_tensor(source)
            arguments["attention_mask"] = torch.ones_like(arguments["input_ids"])
            ids = arguments["input_ids"]
            arguments |= self._token_types(ids, ids.new_tensor([ids.shape[1]] * len(ids)))
        elif self.model_type.feed == "prefix":
            arguments["input_ids"] = prefix
        elif self.model_type.takes_prompt:  # BLIP's drops the last token of its prompt
            arguments["input_ids"] = torch.cat([prefix, prefix[:, :1]], 1)
        if self.model_type.feed != "cross_attention" or self.is_two:  # BLIP's brings its own
            arguments["eos_token_id"] = list(self.tokenizer.ends)
            arguments["pad_token_id"] = self._pad
        return arguments

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
        return self.tokenizer.ends[0] if pad is None else int(pad)

    def _ended(self, tokens: list[int], max_new_tokens: int) -> list[int]:
        """The tokens up to the first that ends a caption; cut off at the limit without one."""
        for place, token in enumerate(tokens):
            if token in self.tokenizer.ends:
                return tokens[: place + 1]
        return tokens[:max_new_tokens]

    def targets(self, output: CaptionOutput, task: Any) -> list[list[Target]]:
        """The answer of each row; of a caption the sentence and its words, in reading order.

        Raises:
            LabelError: a word that the caption does not have.
        """
        if isinstance(task, Answers):
            return captions.answer_targets(output.sentences, self.has_attention)
        return super().targets(output, task)

    def text(self, output: CaptionOutput, inputs: Inputs) -> list[dict[str, Any]]:
        """The caption of each picture, or its question with the answers, with log-probabilities."""
        if "questions" not in inputs.rest:
            return super().text(output, inputs)
        asked: dict[int, PromptQuestion] = dict(
            zip(inputs.sample_index, inputs.rest["questions"], strict=True)
        )
        facts = captions.answer_facts(
            output, [one.text for one in asked.values()], inputs.sample_index
        )
        for fact, one in zip(facts, asked.values(), strict=True):
            fact["words"] = [word.text for word in one.words]
            fact["unknown_words"] = list(one.unknown)
        return facts
