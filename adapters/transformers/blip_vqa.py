"""BLIP's model of answers: a question that looks at the picture, and a decoder that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmcam.adapters.base.captions import Sentence
from mmcam.adapters.transformers.generation import GenerativeAdapter
from mmcam.adapters.transformers.prompts import Prompt, TextBatch
from mmcam.adapters.transformers.questions import PromptQuestion
from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import LabelError
from mmcam.tasks import Answers
from mmcam.types import Inputs, Sample


@dataclass(kw_only=True)
class BlipVqaAdapter(GenerativeAdapter):
    """`BlipForQuestionAnswering`: its question attends to the picture, its answer to those states.

    Its attention is the question's: the mean over its words, and over heads and layers.
    """

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """As `GenerativeAdapter.prepare`, for questions alone.

        Raises:
            LabelError: another task, or a question or answer that the model cannot take.
        """
        if not isinstance(task, Answers):
            raise LabelError(
                f"{self.name} answers questions and is not asked by {task!r}; give Answers(...)"
            )
        return super().prepare(samples, task)

    def _behind(self, prompt: str) -> TransformersTokenizer:
        """The language of an answer, which begins a text of its own."""
        return self.tokenizer

    def _prompt(self, sample: Sample, prompt: str) -> Prompt:
        """The token before an answer, and the question as its encoder reads it."""
        model: Any = self.model
        source = self.processor.tokenizer(prompt)["input_ids"]
        return Prompt((int(model.decoder_start_token_id),), tuple(source))

    def _starting(self, prompts: Sequence[Prompt], prefix: Tensor) -> dict[str, Any]:
        source = prefix.new_tensor([prompt.source for prompt in prompts])
        return {"input_ids": source, "attention_mask": torch.ones_like(source)}

    def _cross_attention(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[TextBatch, Tensor, Tensor | None]:
        """The question read with the picture, and the answer told from that."""
        model: Any = self.model
        hidden = self._encoder(**self._image_arguments(inputs))[0]
        rows = max(len(hidden), len(sentences))
        hidden = hidden.repeat(rows // len(hidden), 1, 1)
        script = self._text_batch(inputs, sentences, rows)
        prompts: list[Prompt] = inputs.rest["asked"]
        lengths = script.ids.new_tensor([len(prompt.source) for prompt in prompts])
        ids, mask = _filled([prompt.source for prompt in prompts], lengths)
        times = rows // len(prompts)
        ids, mask = ids.repeat(times, 1), mask.repeat(times, 1)
        question = model.text_encoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=hidden,
            output_attentions=inputs.output_attentions,
        )
        read = lengths.repeat(times)
        logits = self._decoded(script.ids, question.last_hidden_state, read)
        attention = None
        if inputs.output_attentions:
            looks = torch.stack([layer.detach().mean(1) for layer in question.cross_attentions])
            looked = self._read_from(looks.mean(0), inputs)
            attention = looked[:, None].expand(-1, script.steps, -1, -1)
        return script, logits, attention

    def _decoded(self, ids: Tensor, states: Tensor, lengths: Tensor) -> Tensor:
        """Logits behind the first `lengths` states of each question.

        Questions of one length at a time: the decoder's attention to them heeds no mask, so that
        what a shorter one is filled up with would be read.
        """
        model: Any = self.model
        parts, rows = [], []
        for length in lengths.unique().tolist():
            some = (lengths == length).nonzero()[:, 0]
            rows.append(some)
            output = model.text_decoder(
                input_ids=ids[some], encoder_hidden_states=states[some, :length], use_cache=False
            )
            parts.append(output.logits)
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def _read_from(self, looks: Tensor, inputs: Inputs) -> Tensor:
        """Where the words of each question looked, `[row h w]`, from `[row token patch]`."""
        asked: list[PromptQuestion] = inputs.rest["questions"]
        made = []
        for row, encode_images in enumerate(looks):
            words = asked[row % len(asked)].words
            made.append(encode_images[words[0].start : words[-1].stop].mean(0))
        return self.pictures.placed(torch.stack(made)[..., None], inputs, self.model_type.lead)


def _filled(rows: Sequence[Sequence[int]], lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens of different number as a batch, filled up at the end, and where they are."""
    longest = max(map(len, rows))
    ids = lengths.new_tensor([(*row, *[0] * (longest - len(row))) for row in rows])
    places = torch.arange(longest, device=lengths.device)
    return ids, (places < lengths[:, None]).long()
