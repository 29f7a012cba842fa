"""Small untrained captioners of transformers, each with its own kind of processor and tokenizer."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmcam.adapters.transformers.generation import GenerativeAdapter
from mmcam.adapters.transformers.model_types import DEFAULT_PROMPT
from mmcam.models.registry import load
from mmcam.types import Inputs, Sample
from tests.adapters.tiny_generative_chat import (
    florence2,
    idefics3,
    llava,
    llava_next,
    paligemma,
    qwen2_5_vl,
    qwen2_vl,
    smolvlm,
)
from tests.adapters.tiny_generative_models import (
    blip,
    blip2_opt,
    blip2_t5,
    blip_vqa,
    git,
    instructblip,
    swin_gpt2,
    vilt,
    vit_gpt2,
)

GIVEN = "a brown dog runs"
"""A caption that all models can generate."""


class TinyModel(NamedTuple):
    """A captioner and the size of its test pictures."""

    name: str
    build: Callable[[], tuple[nn.Module, Any]]
    layer: str
    """A layer near the pixels, tested in addition to the default one."""
    size: tuple[int, int] = (48, 40)
    """Of the pictures, height and width."""
    has_attention: bool = True
    """Whether its text attends to positions of the picture."""
    one_by_one: bool = False
    """Whether the shape of its input depends on the picture."""
    slack: int = 0
    """Cells between a patch and the strongest change at most: strided convolutions overlap."""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    def save(self, folder: Path) -> None:
        """The model and its processor as a folder of transformers; the same every time."""
        torch.manual_seed(0)
        model, processor = self.build()
        randomize(model)
        model.save_pretrained(folder)
        for component in processor if isinstance(processor, Sequence) else [processor]:
            component.save_pretrained(folder)


@torch.no_grad()
def randomize(model: nn.Module) -> None:
    """Weights large enough that words and pictures change the output."""
    for name, parameter in model.named_parameters():
        is_table = any(part in name for part in ("embed", "wte", "wpe", "shared"))
        if parameter.ndim > 1 and "norm" not in name.lower():
            std = 1.0 if is_table and parameter.ndim == 2 else 2 / parameter[0].numel() ** 0.5
            parameter.normal_(std=std)
        elif not parameter.any():
            parameter.normal_(std=0.02)


CASES = [
    TinyModel("blip", blip, "vision_model.embeddings.patch_embedding"),
    TinyModel("vit-gpt2", vit_gpt2, "encoder.embeddings.patch_embeddings.projection"),
    TinyModel("swin-gpt2", swin_gpt2, "encoder.embeddings"),
    TinyModel("git", git, "git.image_encoder.vision_model.embeddings.patch_embedding"),
    TinyModel(
        "blip-2 opt", blip2_opt, "vision_model.embeddings.patch_embedding", has_attention=False
    ),
    TinyModel(
        "blip-2 t5", blip2_t5, "vision_model.embeddings.patch_embedding", has_attention=False
    ),
    TinyModel(
        "instructblip",
        instructblip,
        "vision_model.embeddings.patch_embedding",
        has_attention=False,
    ),
    TinyModel("llava", llava, "model.vision_tower.encoder.layers.0"),
    TinyModel(
        "llava_next",
        llava_next,
        "model.vision_tower.encoder.layers.0",
        (40, 72),
        one_by_one=True,
    ),
    TinyModel("qwen2_vl", qwen2_vl, "model.visual.blocks.0", (64, 48), one_by_one=True),
    TinyModel("qwen2_5_vl", qwen2_5_vl, "model.visual.blocks.0", (64, 80), one_by_one=True),
    TinyModel("paligemma", paligemma, "model.vision_tower.embeddings.patch_embedding"),
    TinyModel(
        "idefics3",
        idefics3,
        "model.vision_model.encoder.layers.0",
        (40, 72),
        one_by_one=True,
    ),
    TinyModel(
        "smolvlm",
        smolvlm,
        "model.vision_model.encoder.layers.0",
        (72, 40),
        one_by_one=True,
    ),
    TinyModel("florence2", florence2, "model.vision_tower.convs.0", slack=1),
]

BLIP_VQA = TinyModel("blip vqa", blip_vqa, "vision_model.embeddings.patch_embedding")
VILT = TinyModel("vilt", vilt, "vilt.embeddings.patch_embeddings.projection")

FOLDER = tempfile.TemporaryDirectory()


@cache
def folder(case: TinyModel) -> Path:
    """A tiny captioner as `save_pretrained` leaves it."""
    if case.name == "smolvlm":
        pytest.importorskip("num2words")
    path = Path(FOLDER.name) / str(case)
    case.save(path)
    return path


@cache
def adapter_of(case: TinyModel) -> GenerativeAdapter:
    """The adapter of a tiny captioner; the same for all tests."""
    adapter = load(f"hf:{folder(case)}")
    assert isinstance(adapter, GenerativeAdapter)
    adapter.model.eval()
    return adapter


def case_of(name: str) -> TinyModel:
    """A captioner by name."""
    return next(case for case in CASES if case.name == name)


def picture(size: tuple[int, int], seed: int = 0) -> Sample:
    """Noise of this height and width."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Sample(pixels=noise, id=f"noise {seed}")


def prepared(adapter: GenerativeAdapter, sample: Sample, task: Any) -> Inputs:
    """The model's inputs for one picture."""
    with torch.no_grad():
        return adapter.prepare([sample], task)


def reference_arguments(
    adapter: GenerativeAdapter, sample: Sample, question: str | None = None
) -> dict[str, Any]:
    """The arguments of `generate` as documented for the model, from the processor alone."""
    processor, model_type = adapter.processor, adapter.model.config.model_type
    image = Image.fromarray(sample.pixels)
    if model_type == "vision-encoder-decoder":
        return dict(processor.image_processor(image, return_tensors="pt"))
    if getattr(processor, "chat_template", None):
        content = [
            {"type": "image", "image": image},
            {"type": "text", "text": question or DEFAULT_PROMPT},
        ]
        return dict(
            processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        )
    if model_type == "git" and question is not None:
        arguments = dict(processor(images=image, return_tensors="pt"))
        words = processor(text=question, add_special_tokens=False).input_ids
        ids = [processor.tokenizer.cls_token_id, *words]
        return {"pixel_values": arguments["pixel_values"], "input_ids": torch.tensor([ids])}
    captions = {
        "llava": f"USER: <image>\n{DEFAULT_PROMPT} ASSISTANT:",
        "llava_next": f"USER: <image>\n{DEFAULT_PROMPT} ASSISTANT:",
        "instructblip": "A short image description.",
        "paligemma": "<image>caption en",
        "florence2": "<CAPTION>",
    }
    questions = {
        "blip": f"{question}",
        "blip-2": f"Question: {question} Answer:",
        "llava": f"USER: <image>\n{question} ASSISTANT:",
        "llava_next": f"USER: <image>\n{question} ASSISTANT:",
        "instructblip": f"Question: {question} Short answer:",
        "paligemma": f"<image>answer en {question}",
        "florence2": f"{question}",
    }
    texts = captions if question is None else questions
    text = {"text": texts[model_type]} if model_type in texts else {}
    arguments = dict(processor(images=image, **text, return_tensors="pt"))
    arguments.pop("labels", None)
    return arguments


class DoublePrecision(TorchFunctionMode):
    """Inside, casts to single precision, which some norms do, are casts to double precision."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        def wide(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        if function is Tensor.float:
            function = Tensor.double
        kwargs = {key: wide(value) for key, value in (kwargs or {}).items()}
        return function(*map(wide, args), **kwargs)


def in_double_precision(adapter: GenerativeAdapter) -> GenerativeAdapter:
    """The adapter with a model in double precision, to run inside `DoublePrecision`."""
    return replace(adapter, model=copy.deepcopy(adapter.model).double())


@contextmanager
def counted_runs(model: nn.Module, layer: str) -> Iterator[list[int]]:
    """In this context, the one entry of the list counts how often the layer has run."""
    runs = [0]

    def count(*call: Any) -> None:
        runs[0] += 1

    hook = model.get_submodule(layer).register_forward_hook(count)
    try:
        yield runs
    finally:
        hook.remove()
