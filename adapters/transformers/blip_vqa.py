"""BLIP for VQA: the question attends to the picture, and a decoder attends to the question."""

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
    """`BlipForQuestionAnswering`: the question attends to the picture, the answer to the question.

    The attention returned is the question's: the mean over its words, heads and layers.
    """

    @property
    def default_task(self) -> Answers:
        """The top answer to the question of each sample, its text."""
        return Answers()

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """As `GenerativeAdapter.prepare`, for questions only.

        Raises:
            LabelError: the task is not `Answers`, or a question or answer is not supported.
            InputError: as `GenerativeAdapter.prepare_prompts`.
            ModelError: the model fails while it generates.
        """
        if not isinstance(task, Answers):
            raise LabelError(
                f"{self.name} answers questions and does not support {task!r}; give Answers(...)"
            )
        return super().prepare(samples, task)

    def _tokenizer_after(self, prompt: str) -> TransformersTokenizer:
        """The tokenizer of answers, which do not continue the prompt."""
        return self.tokenizer

    def _tokenize_prompt(self, sample: Sample, prompt: str) -> Prompt:
        """The decoder's start token, and the question as the text encoder's input."""
        model: Any = self.model
        source = self.processor.tokenizer(prompt)["input_ids"]
        return Prompt((int(model.decoder_start_token_id),), tuple(source))

    def _generate_arguments(self, prompts: Sequence[Prompt], prefix: Tensor) -> dict[str, Any]:
        source = prefix.new_tensor([prompt.source for prompt in prompts])
        return {"input_ids": source, "attention_mask": torch.ones_like(source)}

    def _forward_cross_attention(
        self, inputs: Inputs, sentences: Sequence[Sentence]
    ) -> tuple[TextBatch, Tensor, Tensor | None]:
        """Encode the question with the picture, then run the decoder on the answer."""
        model: Any = self.model
        hidden = self._encoder(**self._image_arguments(inputs))[0]
        rows = max(len(hidden), len(sentences))
        hidden = hidden.repeat(rows // len(hidden), 1, 1)
        batch = self._text_batch(inputs, sentences, rows)
        prompts: list[Prompt] = inputs.rest["prompt_tokens"]
        lengths = batch.ids.new_tensor([len(prompt.source) for prompt in prompts])
        ids, mask = _pad([prompt.source for prompt in prompts], lengths)
        repeats = rows // len(prompts)
        ids, mask = ids.repeat(repeats, 1), mask.repeat(repeats, 1)
        question = model.text_encoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=hidden,
            output_attentions=inputs.output_attentions,
        )
        row_lengths = lengths.repeat(repeats)
        logits = self._decode(batch.ids, question.last_hidden_state, row_lengths)
        attention = None
        if inputs.output_attentions:
            layers = torch.stack([layer.detach().mean(1) for layer in question.cross_attentions])
            grid = self._question_attention(layers.mean(0), inputs)
            attention = grid[:, None].expand(-1, batch.steps, -1, -1)
        return batch, logits, attention

    def _decode(self, ids: Tensor, states: Tensor, lengths: Tensor) -> Tensor:
        """Logits of a decoder that attends to the first `lengths` states of each question.

        Questions of each length are decoded separately: the decoder's cross-attention ignores the
        mask, so it would attend to the padding of shorter questions.
        """
        model: Any = self.model
        logits, rows = [], []
        for length in lengths.unique().tolist():
            group = (lengths == length).nonzero()[:, 0]
            rows.append(group)
            output = model.text_decoder(
                input_ids=ids[group], encoder_hidden_states=states[group, :length], use_cache=False
            )
            logits.append(output.logits)
        return torch.cat(logits)[torch.cat(rows).argsort()]

    def _question_attention(self, attention: Tensor, inputs: Inputs) -> Tensor:
        """The mean attention of a question's words, `[row h w]`, from that of all its tokens.

        `attention` is `[row token patch]`.
        """
        questions: list[PromptQuestion] = inputs.rest["questions"]
        means = []
        for row, weights in enumerate(attention):
            words = questions[row % len(questions)].words
            means.append(weights[words[0].start : words[-1].stop].mean(0))
        tokens = torch.stack(means)[..., None]
        return self.images.attention_to_grid(tokens, inputs, self.model_type.attended_prefix)


def _pad(rows: Sequence[Sequence[int]], lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of tokens as a batch, padded on the right, and its attention mask."""
    longest = max(map(len, rows))
    ids = lengths.new_tensor([(*row, *[0] * (longest - len(row))) for row in rows])
    positions = torch.arange(longest, device=lengths.device)
    return ids, (positions < lengths[:, None]).long()
