"""Prompts as tokens, and batches of captions that follow them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmcam.adapters.transformers.model_types import ModelType
from mmcam.types import Pixels


class Prompt(NamedTuple):
    """The tokens that precede a caption.

    `prefix` directly precedes the caption; `source` is the input of the text encoder, image tokens
    included, if the model has one.
    """

    prefix: tuple[int, ...]
    source: tuple[int, ...] = ()


class TextBatch(NamedTuple):
    """Prompts and captions as a batch: `ids` `[row, length]`, padded on the right.

    `starts` are the positions whose logits predict each row's first caption token; `steps` is the
    length of the longest caption.
    """

    ids: Tensor
    starts: list[int]
    steps: int

    @property
    def logits_to_keep(self) -> int:
        """The number of positions, counted from the end, whose logits are used."""
        return self.ids.shape[1] - min(self.starts)

    def caption_steps(self, values: Tensor) -> Tensor:
        """The part `[row, step, *]` of `values` that predicts each row's caption.

        `values` `[row, position, *]` may lack leading positions, but must contain the last one.
        """
        first = values.shape[1] - self.ids.shape[1]
        if len(set(self.starts)) == 1:
            begin = first + self.starts[0]
            return values[:, begin : begin + self.steps]
        positions = torch.tensor(self.starts)[:, None] + torch.arange(self.steps)
        positions = (first + positions).clamp(max=values.shape[1] - 1).to(values.device)
        return values[torch.arange(len(values), device=values.device)[:, None], positions]


def generation_config_of(model: nn.Module, model_type: ModelType) -> Any:
    """The generation config of the module that generates the text."""
    name = (
        "text_decoder"
        if model_type.feed == "cross_attention" and model_type.takes_prompt
        else model_type.language_model
    )
    return model.get_submodule(name).generation_config


def chat_prompt(
    processor: Any, model_type: ModelType, prompt: str, answer: str | None = None
) -> str:
    """The text of a prompt with an image token, formatted for the model's processor.

    `answer`, if given, follows as the model's reply.
    """
    image_token = image_token_of(processor)
    if not model_type.chat_template or image_token in prompt:
        return prompt
    if getattr(processor, "chat_template", None) is None:
        before = model_type.chat_template.format(image=image_token, prompt=prompt)
        return before if answer is None else before + (model_type.answer_separator or "") + answer
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    text: str = processor.apply_chat_template(messages, add_generation_prompt=answer is None)
    return text


def caption_context(processor: Any, model_type: ModelType, prompt: str) -> tuple[str, str]:
    """The text that a caption continues, and the separator between the two.

    Both are empty if the caption is tokenized independently of the prompt.
    """
    if not model_type.chat_template or image_token_of(processor) in prompt:
        return prompt, "" if not prompt or prompt[-1].isspace() else " "
    if model_type.answer_separator is None:
        return "", ""
    placeholder = "Answer"
    before = chat_prompt(processor, model_type, prompt)
    whole = chat_prompt(processor, model_type, prompt, placeholder)
    if not whole.startswith(before):
        return "", ""
    return before, whole[len(before) :].partition(placeholder)[0]


def image_token_of(processor: Any) -> str:
    """The text that stands for the picture in a prompt."""
    token = getattr(processor, "image_token", "<image>")
    return str(getattr(token, "content", token))


def prompt_tokens(
    processor: Any, config: Any, model_type: ModelType, pixels: Pixels, prompt: str
) -> list[int]:
    """The processor's tokens of a prompt, image tokens included."""
    from PIL import Image

    bos_id = getattr(getattr(config, "text_config", None), "bos_token_id", None)
    if not prompt and model_type.language_model and bos_id is not None:
        return [config.image_token_id] * config.num_query_tokens + [bos_id]
    text = chat_prompt(processor, model_type, prompt)
    bos = processor.tokenizer.bos_token
    options = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
    features = processor(
        images=[Image.fromarray(pixels)], text=[text], return_tensors="pt", **options
    )
    ids: list[int] = features["input_ids"][0].tolist()
    return ids
