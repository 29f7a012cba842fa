"""Small untrained models of transformers with image tokens in their text."""

from __future__ import annotations

from typing import Any

from torch import nn

from tests.adapters.tiny_generative_models import SIDE, TEXT, VISION, llama
from tests.adapters.tiny_tokenizers import byte_pairs, sentence_pieces, with_special_tokens

SPECIAL = ["<image>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def llava() -> tuple[nn.Module, Any]:
    from transformers import (
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = with_special_tokens(sentence_pieces(), "<image>")
    config = LlavaConfig(
        vision_config={**VISION, "model_type": "clip_vision_model", "num_hidden_layers": 3},
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

    tokenizer = with_special_tokens(sentence_pieces(), "<image>")
    pinpoints = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
    config = LlavaNextConfig(
        vision_config={**VISION, "model_type": "clip_vision_model", "num_hidden_layers": 3},
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
    with_special_tokens(tokenizer, "<|im_start|>", *SPECIAL[1:])
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
        chat_template=CHAT_TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
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
        vision_config={**VISION, "model_type": "siglip_vision_model", "projection_dim": 32},
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
    tile_tokens = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)]
    special_tokens = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    with_special_tokens(tokenizer, *special_tokens, *tile_tokens)
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**VISION, "model_type": f"{kind.lower()}_vision"},
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
    options: dict[str, Any] = {}
    if kind == "SmolVLM":
        options["video_processor"] = transformers.SmolVLMVideoProcessor(
            **sizes, video_sampling={"fps": 1, "max_frames": 4}
        )
    processor = getattr(transformers, f"{kind}Processor")(
        images, tokenizer, image_seq_len=4, chat_template=template, **options
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
