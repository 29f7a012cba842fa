"""Small untrained captioners of transformers, each with its own kind of processor and tokenizer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_tokenizers import byte_pairs, sentence_pieces, unigram, with_marks, word_pieces
from torch import nn

from mmcam.adapters.transformers_text import TransformersSpeaker
from mmcam.adapters.transformers_voices import ASK
from mmcam.models import load
from mmcam.tasks import Caption
from mmcam.types import Inputs, Sample

GIVEN = "a brown dog runs"
"""A caption that all of them can say."""

SPECIAL = ["<image>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
TALK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}MARK{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
EYES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 32,
}
SIDE = {"height": 32, "width": 32}


def blip() -> tuple[nn.Module, Any]:
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    tokenizer = word_pieces()
    text = {
        **TEXT,
        "encoder_hidden_size": 16,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"),
        "pad_token_id": 0,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "projection_dim": 16,
        "max_position_embeddings": 32,
    }
    config = BlipConfig(text_config=text, vision_config=EYES)
    processor = BlipProcessor(BlipImageProcessor(size=SIDE), tokenizer)
    return BlipForConditionalGeneration(config), processor


def captioner(encoder: Any, decoder: Any) -> nn.Module:
    from transformers import VisionEncoderDecoderConfig, VisionEncoderDecoderModel

    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = decoder.bos_token_id
    config.eos_token_id, config.pad_token_id = decoder.eos_token_id, decoder.eos_token_id
    model = VisionEncoderDecoderModel(config)
    for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, key, getattr(config, key))
    return model


def gpt2(tokenizer: Any) -> Any:
    from transformers import GPT2Config

    end = tokenizer.eos_token_id
    return GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=32,
        vocab_size=len(tokenizer),
        bos_token_id=end,
        eos_token_id=end,
        add_cross_attention=True,
        is_decoder=True,
    )


def vit_gpt2() -> tuple[nn.Module, Any]:
    from transformers import ViTConfig, ViTImageProcessor

    tokenizer = byte_pairs(eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    model = captioner(ViTConfig(**{**EYES, "image_size": (32, 48)}), gpt2(tokenizer))
    return model, [ViTImageProcessor(size={"height": 32, "width": 48}), tokenizer]


def swin_gpt2() -> tuple[nn.Module, Any]:
    from transformers import SwinConfig, ViTImageProcessor

    tokenizer = byte_pairs(eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    encoder = SwinConfig(
        image_size=(32, 64),
        patch_size=4,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[1, 2],
        window_size=4,
    )
    return captioner(encoder, gpt2(tokenizer)), [
        ViTImageProcessor(size={"height": 32, "width": 64}),
        tokenizer,
    ]


def git() -> tuple[nn.Module, Any]:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    tokenizer = word_pieces()
    config = GitConfig(
        vision_config=EYES,
        **{**TEXT, "max_position_embeddings": 32},
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=0,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIDE)
    return GitForCausalLM(config), GitProcessor(images, tokenizer)


def blip2(text: Any, tokenizer: Any) -> tuple[nn.Module, Any]:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
    )

    processor = Blip2Processor(BlipImageProcessor(size=SIDE), tokenizer, num_query_tokens=3)
    text.vocab_size = len(tokenizer)
    queries = {**TEXT, "encoder_hidden_size": 16, "cross_attention_frequency": 1, "vocab_size": 9}
    config = Blip2Config(
        vision_config=EYES,
        qformer_config=queries,
        text_config=text.to_dict(),
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return Blip2ForConditionalGeneration(config), processor


def blip2_opt() -> tuple[nn.Module, Any]:
    from transformers import OPTConfig

    tokenizer = byte_pairs(bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>")
    text = OPTConfig(
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids("\u010a"),
    )
    return blip2(text, tokenizer)


def blip2_t5() -> tuple[nn.Module, Any]:
    from transformers import T5Config

    text = T5Config(
        d_model=32,
        d_ff=48,
        d_kv=16,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        bos_token_id=1,
    )
    return blip2(text, unigram())


def instructblip() -> tuple[nn.Module, Any]:
    from transformers import (
        BlipImageProcessor,
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipProcessor,
    )

    tokenizer, reader = sentence_pieces(), word_pieces()
    processor = InstructBlipProcessor(
        BlipImageProcessor(size=SIDE), tokenizer, reader, num_query_tokens=3
    )
    queries = {**TEXT, "encoder_hidden_size": 16, "cross_attention_frequency": 1}
    config = InstructBlipConfig(
        vision_config=EYES,
        qformer_config={**queries, "vocab_size": len(reader)},
        text_config=llama(tokenizer),
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return InstructBlipForConditionalGeneration(config), processor


def llama(tokenizer: Any) -> dict[str, Any]:
    return {
        **TEXT,
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def llava() -> tuple[nn.Module, Any]:
    from transformers import (
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = with_marks(sentence_pieces(), "<image>")
    config = LlavaConfig(
        vision_config={**EYES, "model_type": "clip_vision_model", "num_hidden_layers": 3},
        text_config=llama(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIDE),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return LlavaForConditionalGeneration(config), processor


def llava_next() -> tuple[nn.Module, Any]:
    from transformers import (
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    tokenizer = with_marks(sentence_pieces(), "<image>")
    pinpoints = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
    config = LlavaNextConfig(
        vision_config={**EYES, "model_type": "clip_vision_model", "num_hidden_layers": 3},
        text_config=llama(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
    )
    images = LlavaNextImageProcessor(
        size={"shortest_edge": 32}, crop_size=SIDE, image_grid_pinpoints=pinpoints
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return LlavaNextForConditionalGeneration(config), processor


def qwen(kind: str, vision: dict[str, Any]) -> tuple[nn.Module, Any]:
    import transformers

    tokenizer = byte_pairs("Qwen2Tokenizer", eos_token="<|im_end|>", pad_token="<|endoftext|>")
    with_marks(tokenizer, "<|im_start|>", *SPECIAL[1:])
    config = getattr(transformers, f"{kind}Config")(
        vision_config={
            "patch_size": 8,
            "num_heads": 2,
            "depth": 2,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            **vision,
        },
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 3, 3],
            },
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    patches = {
        "patch_size": 8,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": 16 * 16, "longest_edge": 80 * 80},
    }
    processor = transformers.Qwen2VLProcessor(
        transformers.Qwen2VLImageProcessor(**patches),
        tokenizer,
        transformers.Qwen2VLVideoProcessor(**patches),
        chat_template=TALK.replace("MARK", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor


def qwen2_vl() -> tuple[nn.Module, Any]:
    return qwen("Qwen2VL", {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2})


def qwen2_5_vl() -> tuple[nn.Module, Any]:
    vision = {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32}
    return qwen("Qwen2_5_VL", {**vision, "window_size": 32, "fullatt_block_indexes": [1]})


def paligemma() -> tuple[nn.Module, Any]:
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    tokenizer = sentence_pieces(
        "GemmaTokenizer", pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    images = SiglipImageProcessor(size=SIDE)
    images.image_seq_length = 16
    processor = PaliGemmaProcessor(images, tokenizer)
    config = PaliGemmaConfig(
        vision_config={**EYES, "model_type": "siglip_vision_model", "projection_dim": 32},
        text_config={
            **llama(tokenizer),
            "model_type": "gemma",
            "head_dim": 16,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
    )
    return PaliGemmaForConditionalGeneration(config), processor


def idefics(kind: str) -> tuple[nn.Module, Any]:
    import transformers

    tokenizer = byte_pairs(
        bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>"
    )
    places = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)]
    marks = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    with_marks(tokenizer, *marks, *places)
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**EYES, "model_type": f"{kind.lower()}_vision"},
        text_config=llama(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    images = getattr(transformers, f"{kind}ImageProcessor")(**sizes)
    template = (
        "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}"
        "{% if m.content[0].type == 'image' %}:{% else %}: {% endif %}"
        "{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}"
        "{% endfor %}<end_of_utterance>\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    more: dict[str, Any] = {}
    if kind == "SmolVLM":
        more["video_processor"] = transformers.SmolVLMVideoProcessor(
            **sizes, video_sampling={"fps": 1, "max_frames": 4}
        )
    processor = getattr(transformers, f"{kind}Processor")(
        images, tokenizer, image_seq_len=4, chat_template=template, **more
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor


def idefics3() -> tuple[nn.Module, Any]:
    return idefics("Idefics3")


def smolvlm() -> tuple[nn.Module, Any]:
    return idefics("SmolVLM")


def florence2() -> tuple[nn.Module, Any]:
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tokenizer = byte_pairs(
        "BartTokenizer",
        {"image_token": "<image>"},
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    config = Florence2Config(
        vision_config={
            "embed_dim": [8, 16],
            "depths": [1, 1],
            "num_heads": [1, 2],
            "num_groups": [1, 2],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "window_size": 3,
            "projection_dim": 32,
            "drop_path_rate": 0.0,
            "max_position_embeddings": 8,
            "max_temporal_embeddings": 4,
        },
        text_config={
            "model_type": "bart",
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 128,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "decoder_start_token_id": tokenizer.eos_token_id,
            "forced_eos_token_id": None,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 65
    model = Florence2ForConditionalGeneration(config)
    model.generation_config.forced_bos_token_id = tokenizer.bos_token_id
    return model, Florence2Processor(images, tokenizer)


class Tiny(NamedTuple):
    """A captioner and the pictures it is tried on."""

    name: str
    build: Callable[[], tuple[nn.Module, Any]]
    layer: str
    """A layer near the pixels, to be probed beside the default one."""
    size: tuple[int, int] = (48, 40)
    """Of the pictures, height and width."""
    attends: bool = True
    fans: bool = True
    """Whether its encoder's output can be repeated."""
    one_by_one: bool = False
    """Whether its inputs have a shape of their own for each picture."""
    slack: int = 0
    """How many cells off its patch the strongest change may lie: strided convolutions overlap."""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    def save(self, folder: Path) -> None:
        """The model and its processor as a folder of transformers; the same every time."""
        torch.manual_seed(0)
        model, processor = self.build()
        lively(model)
        model.save_pretrained(folder)
        for part in processor if isinstance(processor, Sequence) else [processor]:
            part.save_pretrained(folder)


@torch.no_grad()
def lively(model: nn.Module) -> None:
    """Weights so large that words and pictures make a difference."""
    for name, parameter in model.named_parameters():
        is_table = any(part in name for part in ("embed", "wte", "wpe", "shared"))
        if parameter.ndim > 1 and "norm" not in name.lower():
            own = 1.0 if is_table and parameter.ndim == 2 else 2 / parameter[0].numel() ** 0.5
            parameter.normal_(std=own)
        elif not parameter.any():
            parameter.normal_(std=0.02)


SPEAKERS = [
    Tiny("blip", blip, "vision_model.embeddings.patch_embedding"),
    Tiny("vit-gpt2", vit_gpt2, "encoder.embeddings.patch_embeddings.projection"),
    Tiny("swin-gpt2", swin_gpt2, "encoder.embeddings"),
    Tiny("git", git, "git.image_encoder.vision_model.embeddings.patch_embedding"),
    Tiny("blip-2 opt", blip2_opt, "vision_model.embeddings.patch_embedding", attends=False),
    Tiny("blip-2 t5", blip2_t5, "vision_model.embeddings.patch_embedding", attends=False),
    Tiny(
        "instructblip",
        instructblip,
        "vision_model.embeddings.patch_embedding",
        attends=False,
        fans=False,
    ),
    Tiny("llava", llava, "model.vision_tower.encoder.layers.0"),
    Tiny(
        "llava_next",
        llava_next,
        "model.vision_tower.encoder.layers.0",
        (40, 72),
        fans=False,
        one_by_one=True,
    ),
    Tiny("qwen2_vl", qwen2_vl, "model.visual.blocks.0", (64, 48), one_by_one=True),
    Tiny("qwen2_5_vl", qwen2_5_vl, "model.visual.blocks.0", (64, 80), one_by_one=True),
    Tiny("paligemma", paligemma, "model.vision_tower.embeddings.patch_embedding"),
    Tiny(
        "idefics3",
        idefics3,
        "model.vision_model.encoder.layers.0",
        (40, 72),
        fans=False,
        one_by_one=True,
    ),
    Tiny(
        "smolvlm",
        smolvlm,
        "model.vision_model.encoder.layers.0",
        (72, 40),
        fans=False,
        one_by_one=True,
    ),
    Tiny("florence2", florence2, "model.vision_tower.convs.0", slack=1),
]

FOLDER = tempfile.TemporaryDirectory()


@cache
def folder(case: Tiny) -> Path:
    """A tiny captioner as `save_pretrained` leaves it."""
    if case.name == "smolvlm":
        pytest.importorskip("num2words")
    path = Path(FOLDER.name) / str(case)
    case.save(path)
    return path


@cache
def speaker(case: Tiny) -> TransformersSpeaker:
    """The adapter of a tiny captioner; the same for all tests."""
    adapter = load(f"hf:{folder(case)}")
    assert isinstance(adapter, TransformersSpeaker)
    adapter.model.eval()
    return adapter


def case_of(name: str) -> Tiny:
    """A captioner by name."""
    return next(case for case in SPEAKERS if case.name == name)


def picture(size: tuple[int, int], seed: int = 0) -> Sample:
    """Noise of this height and width."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Sample(pixels=noise, id=f"noise {seed}")


def ready(adapter: TransformersSpeaker, sample: Sample, task: Caption) -> Inputs:
    """What the model eats for one picture."""
    with torch.no_grad():
        return adapter.prepare([sample], task)


def usual(adapter: TransformersSpeaker, sample: Sample) -> dict[str, Any]:
    """What the model's own documentation gives to `generate`, by the processor alone."""
    processor, kind = adapter.processor, adapter.model.config.model_type
    image = Image.fromarray(sample.pixels)
    if kind == "vision-encoder-decoder":
        return dict(processor.image_processor(image, return_tensors="pt"))
    if getattr(processor, "chat_template", None):
        content = [{"type": "image", "image": image}, {"type": "text", "text": ASK}]
        return dict(
            processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        )
    texts = {
        "llava": f"USER: <image>\n{ASK} ASSISTANT:",
        "llava_next": f"USER: <image>\n{ASK} ASSISTANT:",
        "instructblip": "A short image description.",
        "paligemma": "<image>caption en",
        "florence2": "<CAPTION>",
    }
    text = {"text": texts[kind]} if kind in texts else {}
    made = dict(processor(images=image, **text, return_tensors="pt"))
    made.pop("labels", None)
    return made
