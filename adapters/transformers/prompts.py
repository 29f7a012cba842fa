"""What a model of transformers is given before its caption, and the caption behind it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmcam.adapters.transformers.model_types import ModelType
from mmcam.types import Pixels


class Prompt(NamedTuple):
    """What a model is given before its caption, as tokens.

    `prefix` comes right before the caption; `source` is what an encoder of text reads, with the
    places of the picture in it, where the model has one.
    """

    prefix: tuple[int, ...]
    source: tuple[int, ...] = ()


class TextBatch(NamedTuple):
    """Prompts and captions as a batch: `ids` `[row, length]`, filled up on the right.

    `starts` are the places from which each row's first token is said.
    """

    ids: Tensor
    starts: list[int]
    steps: int

    @property
    def kept(self) -> int:
        """How many places count, from the end."""
        return self.ids.shape[1] - min(self.starts)

    def said(self, values: Tensor) -> Tensor:
        """Of `values` `[row, place, *]`, up to the last place, those of each row's caption."""
        first = values.shape[1] - self.ids.shape[1]
        if len(set(self.starts)) == 1:
            begin = first + self.starts[0]
            return values[:, begin : begin + self.steps]
        places = torch.tensor(self.starts)[:, None] + torch.arange(self.steps)
        places = (first + places).clamp(max=values.shape[1] - 1).to(values.device)
        return values[torch.arange(len(values), device=values.device)[:, None], places]


def generation_config_of(model: nn.Module, model_type: ModelType) -> Any:
    """The settings under which a model generates text."""
    part = (
        "text_decoder"
        if model_type.feed == "cross_attention" and model_type.takes_prompt
        else model_type.body
    )
    return model.get_submodule(part).generation_config


def chat_prompt(
    processor: Any, model_type: ModelType, prompt: str, answer: str | None = None
) -> str:
    """The text of a prompt, with a mark for the picture, as the model's processor wants it.

    With `answer`, what the model says to it stands behind.
    """
    image = image_token_of(processor)
    if not model_type.chat or image in prompt:
        return prompt
    if getattr(processor, "chat_template", None) is None:
        before = model_type.chat.format(image=image, prompt=prompt)
        return before if answer is None else before + (model_type.gap or "") + answer
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    talk: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if answer is not None:
        talk.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    said: str = processor.apply_chat_template(talk, add_generation_prompt=answer is None)
    return said


def caption_context(processor: Any, model_type: ModelType, prompt: str) -> tuple[str, str]:
    """What a caption follows in the text that the model goes on with, and what stands between."""
    if not model_type.chat or image_token_of(processor) in prompt:
        return prompt, "" if not prompt or prompt[-1].isspace() else " "
    if model_type.gap is None:
        return "", ""
    answer = "Answer"
    before = chat_prompt(processor, model_type, prompt)
    whole = chat_prompt(processor, model_type, prompt, answer)
    if not whole.startswith(before):
        return "", ""
    return before, whole[len(before) :].partition(answer)[0]


def image_token_of(processor: Any) -> str:
    """What stands for the picture in a prompt."""
    mark = getattr(processor, "image_token", "<image>")
    return str(getattr(mark, "content", mark))


def among(
    processor: Any, config: Any, model_type: ModelType, pixels: Pixels, prompt: str
) -> list[int]:
    """The tokens of a prompt and of the picture in it, from the processor itself."""
    from PIL import Image

    start = getattr(getattr(config, "text_config", None), "bos_token_id", None)
    if not prompt and model_type.body and start is not None:
        return [config.image_token_id] * config.num_query_tokens + [start]
    text = chat_prompt(processor, model_type, prompt)
    bos = processor.tokenizer.bos_token
    options = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
    made = processor(images=[Image.fromarray(pixels)], text=[text], return_tensors="pt", **options)
    ids: list[int] = made["input_ids"][0].tolist()
    return ids
