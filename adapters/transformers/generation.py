"""The adapter for transformers' generative vision-language models."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmcam.adapters.base import captions
from mmcam.adapters.base.captions import CaptionOutput, Sentence
from mmcam.adapters.base.outputs import record_outputs
from mmcam.adapters.base.preprocess import floating_parameter
from mmcam.adapters.transformers.hooks import (
    concatenate,
    eager_attention,
    every_nth_row,
    restore_attributes,
)
from mmcam.adapters.transformers.images import collate, tile_layout
from mmcam.adapters.transformers.loading import processor_errors
from mmcam.adapters.transformers.prompts import Prompt, caption_context, prompt_tokens
from mmcam.adapters.transformers.questions import (
    AnswerSet,
    PromptQuestion,
    answer_rows,
    answer_set,
    locate_question,
    question_prompt,
)
from mmcam.adapters.transformers.teacher_forcing import TeacherForcing
from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import InputError, LabelError, ModelError, UnequalInputsError, model_errors
from mmcam.tasks import Answers, Caption
from mmcam.tasks.scores import LOG_PROB
from mmcam.types import Inputs, Sample, Target

MAX_ANSWER_TOKENS = 20
"""The maximum number of tokens in a generated answer."""


@dataclass(kw_only=True)
class GenerativeAdapter(TeacherForcing):
    """A model that generates text about a picture: captions, and answers to questions."""

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """As `CaptionAdapter.prepare`, but a given text is tokenized as the prompt's continuation.

        For `Answers`, each answer is a row: a picture has as many rows as it has answers.

        Raises:
            LabelError: the model does not take the task, its score, the prompt or the question, or
                cannot generate a given text.
            InputError: as `prepare_prompts`.
            ModelError: as `prepare_prompts`, or the model fails while it generates.
        """
        if isinstance(task, Answers) and task.score not in (None, LOG_PROB):
            raise LabelError(
                f"score='{task.score}' is not a score of the answers that {self.name} writes "
                f"as text; leave it out, or choose {LOG_PROB}"
            )
        with eager_attention(self._text_module):
            if isinstance(task, Answers):
                return self._prepare_answers(samples, task)
            if not isinstance(task, Caption) or task.prompt is None:
                return super().prepare(samples, task)
            adapter = replace(self, tokenizer=self._tokenizer_after(task.prompt))
            return super(GenerativeAdapter, adapter).prepare(samples, task)

    def _tokenizer_after(self, prompt: str) -> TransformersTokenizer:
        """The tokenizer for texts that continue a prompt."""
        if self.is_encoder_decoder:
            return self.tokenizer
        context, separator = caption_context(self.processor, self.model_type, prompt)
        return replace(self.tokenizer, context=context, separator=separator)

    def _prepare_answers(self, samples: Sequence[Sample], task: Answers) -> Inputs:
        """One row for each given or generated answer.

        Raises:
            LabelError: the model only generates captions, there is no question, the model cannot
                take the question, or it cannot generate an answer.
            InputError: as `prepare_prompts`.
            ModelError: as `prepare_prompts`, or the model fails while it generates.
        """
        texts = [task.question_for(sample.text, sample.id) for sample in samples]
        prompts = [
            question_prompt(self.name, self.processor, self.model_type, text) for text in texts
        ]
        inputs = self.prepare_prompts(samples, prompts)
        questions = [
            self._locate_question(text, prompt)
            for text, prompt in zip(texts, inputs.rest["prompt_tokens"], strict=True)
        ]
        question_inputs = {
            "questions": questions,
            "words": [question.words for question in questions],
        }
        inputs = replace(inputs, rest={**inputs.rest, **question_inputs})
        with model_errors(self.name, inputs.pixels.shape):
            answer_sets = [self._answer_set(inputs.row(row), task) for row in range(len(samples))]
        return answer_rows(inputs, answer_sets)

    def _locate_question(self, question: str, prompt: Prompt) -> PromptQuestion:
        """A question with its words' positions in the prompt.

        Raises:
            LabelError: the question is too long, or all its words are unknown to the tokenizer.
        """
        subject = f'the question "{textwrap.shorten(question, 60, placeholder=" ...")}"'
        # The decoder needs room for the prefix and at least one token of an answer.
        self._check_length(max(len(prompt.prefix) + 1, len(prompt.source)), subject)
        return locate_question(
            self.tokenizer,
            self.processor,
            self.model_type,
            question,
            prompt.source or prompt.prefix,
        )

    def _answer_set(self, inputs: Inputs, task: Answers) -> AnswerSet:
        """The answers for a batch of one sample."""
        adapter = replace(self, tokenizer=self._tokenizer_after(inputs.rest["prompts"][0]))
        if task.answers is not None:
            return answer_set((), self.encode_images(inputs), task, adapter.tokenizer)
        with (
            restore_attributes(self.model),
            record_outputs(self._encoder) as outputs,
            torch.no_grad(),
        ):
            generated = adapter._generate(
                inputs, num_beams=task.top, max_new_tokens=MAX_ANSWER_TOKENS, count=task.top
            )
        # Of the answers with the same text, keep the best, which comes first.
        best = {sentence.text: sentence for sentence in reversed(generated)}
        generated = [sentence for sentence in generated if best[sentence.text] is sentence]
        # If `feed` is "prefix", the encoder's output has a row for each beam.
        repeats = task.top if self.model_type.feed == "prefix" else 1
        encoder_output = every_nth_row(repeats, outputs[0], repeats)
        return answer_set(generated, encoder_output, task, adapter.tokenizer)

    def prepare_pixels(self, samples: Sequence[Sample], task: Caption) -> Inputs:
        """The preprocessed pictures, each with the prompt of the task.

        Raises:
            LabelError: the task has a prompt and the model takes none.
            InputError: as `prepare_prompts`.
            ModelError: as `prepare_prompts`.
        """
        if task.prompt is not None and not self.model_type.takes_prompt:
            raise LabelError(
                f"{self.name} takes no prompt ('{task.prompt}'); leave it out, or choose a model "
                "that follows instructions (mmcam list models)"
            )
        prompt = self.model_type.default_prompt if task.prompt is None else task.prompt
        return self.prepare_prompts(samples, [prompt] * len(samples))

    def prepare_prompts(self, samples: Sequence[Sample], prompts: Sequence[str]) -> Inputs:
        """The preprocessed pictures, each with its own prompt.

        Raises:
            InputError: a clip, a picture that the processor does not take, or pictures whose inputs
                differ in shape.
            ModelError: as `Transform.__call__`, or the configuration names no token that begins a
                caption.
        """
        for sample in samples:
            if sample.pixels.ndim == 4:
                raise InputError(
                    f"'{sample.id}' is a clip and {self.name} is a model of pictures; choose "
                    "another model (mmcam list models)"
                )
        images = []
        for sample in samples:
            with processor_errors(self.name, *sample.pixels.shape[:2]):
                images.append(self.images.process(sample))
        shapes = [(tuple(image.pixels.shape), tile_layout(image.metadata)) for image in images]
        if len(set(shapes)) > 1:
            sizes = sorted({shape for shape, _ in shapes})
            raise UnequalInputsError(
                f"{self.name} turns these pictures into inputs of different shapes {sizes}, which "
                "cannot form one batch; explain them one by one (batch=1)",
                shapes,
            )
        parameter = floating_parameter(self.model)
        metadata = {
            key: value.to(parameter.device) if isinstance(value, Tensor) else value
            for key, value in collate([image.metadata for image in images]).items()
        }
        tokens = [
            self._tokenize_prompt(sample, prompt)
            for sample, prompt in zip(samples, prompts, strict=True)
        ]
        return Inputs(
            pixels=torch.stack([image.pixels for image in images]).to(parameter),
            placements=tuple(image.placement for image in images),
            rest={"prompts": list(prompts), "prompt_tokens": tokens, **metadata},
        )

    def _tokenize_prompt(self, sample: Sample, prompt: str) -> Prompt:
        """A prompt as tokens, with image tokens among them if the model interleaves the two."""
        tokenizer = self.processor.tokenizer
        if self.model_type.feed != "interleaved":
            start = self._start_token
            words = tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else []
            return Prompt((start, *words))
        ids = prompt_tokens(self.processor, self._config, self.model_type, sample.pixels, prompt)
        if not self.is_encoder_decoder:
            return Prompt(tuple(ids))
        config = self._generation_config
        starts = (config.decoder_start_token_id, config.forced_bos_token_id)
        return Prompt(tuple(token for token in starts if token is not None), tuple(ids))

    def generate(self, inputs: Inputs, task: Caption) -> tuple[list[Sentence], Any]:
        """The generated caption of each picture, and the encoder's output.

        Raises:
            LabelError: a prompt is too long for the model.
        """
        prompts: list[Prompt] = inputs.rest["prompt_tokens"]
        lengths = {(len(prompt.prefix), len(prompt.source)) for prompt in prompts}
        rows = len(prompts)
        # Prompts of different lengths are not padded: each runs by itself.
        groups = [slice(0, rows)] if len(lengths) == 1 else [slice(i, i + 1) for i in range(rows)]
        sentences: list[Sentence] = []
        encoder_outputs: list[Any] = []
        for group in groups:
            batch = replace(
                inputs,
                pixels=inputs.pixels[group],
                placements=inputs.placements[group],
                rest={key: value[group] for key, value in inputs.rest.items()},
            )
            with restore_attributes(self.model), record_outputs(self._encoder) as outputs:
                sentences += self._generate(
                    batch, num_beams=task.num_beams, max_new_tokens=task.max_new_tokens
                )
            # If `feed` is "prefix", the encoder's output has a row for each beam.
            repeats = task.num_beams if self.model_type.feed == "prefix" else 1
            encoder_outputs.append(every_nth_row(repeats, outputs[0], repeats * len(batch.pixels)))
        return sentences, concatenate(encoder_outputs)

    def _generate(
        self, inputs: Inputs, *, num_beams: int, max_new_tokens: int, count: int = 1
    ) -> list[Sentence]:
        """The `count` best texts for each picture; all prompts must have the same length."""
        prompts: list[Prompt] = inputs.rest["prompt_tokens"]
        device = inputs.pixels.device
        prefix = torch.tensor([prompt.prefix for prompt in prompts], device=device)
        limit = max_new_tokens + 1  # the end token does not count
        if self.max_positions is not None:
            self._check_length(prefix.shape[1] + 1, "the prompt")
            limit = min(limit, self.max_positions - prefix.shape[1])
        model: Any = self.model
        sequences = model.generate(
            **self._image_arguments(inputs),
            **self._generate_arguments(prompts, prefix),
            num_beams=num_beams,
            num_return_sequences=count,
            max_new_tokens=limit,
            max_length=None,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        begin = prefix.shape[1]
        if not torch.equal(sequences[:, :begin], prefix.repeat_interleave(count, 0)):
            begin = 0  # `generate` of some models returns the new tokens alone
        return [
            self.tokenizer.decode(self._truncate(row, max_new_tokens))
            for row in sequences[:, begin:].tolist()
        ]

    def _generate_arguments(self, prompts: Sequence[Prompt], prefix: Tensor) -> dict[str, Any]:
        """The arguments of the model's `generate` for prompts of the same length."""
        arguments: dict[str, Any] = {}
        if self.model_type.feed == "interleaved":
            source = [prompt.source or prompt.prefix for prompt in prompts]
            arguments["input_ids"] = prefix.new_tensor(source)
            arguments["attention_mask"] = torch.ones_like(arguments["input_ids"])
            ids = arguments["input_ids"]
            arguments |= self._token_types(ids, ids.new_tensor([ids.shape[1]] * len(ids)))
        elif self.model_type.feed == "prefix":
            arguments["input_ids"] = prefix
        elif self.model_type.takes_prompt:  # BLIP drops the last of these tokens
            arguments["input_ids"] = torch.cat([prefix, prefix[:, :1]], 1)
        # BLIP's `generate` sets its end and padding tokens itself.
        if self.model_type.feed != "cross_attention" or self.is_encoder_decoder:
            arguments["eos_token_id"] = list(self.tokenizer.end_tokens)
            arguments["pad_token_id"] = self._pad_token
        return arguments

    @property
    def _start_token(self) -> int:
        """The token that the decoder starts with.

        Raises:
            ModelError: the configuration names no such token.
        """
        config = self._generation_config
        first = config.decoder_start_token_id if self.is_encoder_decoder else None
        for token in (first, config.bos_token_id, self.processor.tokenizer.cls_token_id):
            if token is not None:
                return int(token)
        raise ModelError(
            f"the configuration of {self.name} names no token that begins a caption; set "
            "decoder_start_token_id in its generation_config.json"
        )

    @property
    def _pad_token(self) -> int:
        pad = self._generation_config.pad_token_id
        return self.tokenizer.end_tokens[0] if pad is None else int(pad)

    def _truncate(self, tokens: list[int], max_new_tokens: int) -> list[int]:
        """The tokens up to the first end token, or the first `max_new_tokens` if there is none."""
        for i, token in enumerate(tokens):
            if token in self.tokenizer.end_tokens:
                return tokens[: i + 1]
        return tokens[:max_new_tokens]

    def targets(self, output: CaptionOutput, task: Any) -> list[list[Target]]:
        """The targets of each row: its answer, or its sentence and the words in reading order.

        Raises:
            LabelError: a word that is not in the caption.
        """
        if isinstance(task, Answers):
            return captions.answer_targets(output.sentences, self.has_attention)
        return super().targets(output, task)

    def text(self, output: CaptionOutput, inputs: Inputs) -> list[dict[str, Any]]:
        """Each picture's caption, or its question and answers, with their log-probabilities."""
        if "questions" not in inputs.rest:
            return super().text(output, inputs)
        questions: dict[int, PromptQuestion] = dict(
            zip(inputs.sample_index, inputs.rest["questions"], strict=True)
        )
        facts = captions.answer_facts(
            output, [question.text for question in questions.values()], inputs.sample_index
        )
        for fact, question in zip(facts, questions.values(), strict=True):
            fact["words"] = [word.text for word in question.words]
            fact["unknown_words"] = list(question.unknown)
        return facts
