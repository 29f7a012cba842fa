"""Small untrained models of transformers that encode a picture before the text."""

from __future__ import annotations

from typing import Any

from torch import nn

from tests.adapters.tiny_tokenizers import byte_pairs, sentence_pieces, unigram, word_pieces

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 32,
}
SIDE = {"height": 32, "width": 32}
ANSWERS = ("red", "green", "brown", "two", "yellow and red")
"""The answers of the small ViLT."""


def blip_parts(width: int) -> tuple[Any, Any]:
    from transformers import BlipConfig, BlipImageProcessor, BlipProcessor

    tokenizer = word_pieces()
    text = {
        **TEXT,
        "encoder_hidden_size": width,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"),
        "pad_token_id": 0,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "projection_dim": 16,
        "max_position_embeddings": 32,
    }
    config = BlipConfig(text_config=text, vision_config={**VISION, "hidden_size": width})
    return config, BlipProcessor(BlipImageProcessor(size=SIDE), tokenizer)


def blip() -> tuple[nn.Module, Any]:
    from transformers import BlipForConditionalGeneration

    config, processor = blip_parts(16)
    return BlipForConditionalGeneration(config), processor


def blip_vqa() -> tuple[nn.Module, Any]:
    from transformers import BlipForQuestionAnswering

    config, processor = blip_parts(
        32
    )  # its decoder attends to states as wide as those of the picture
    return BlipForQuestionAnswering(config), processor


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
    model = captioner(ViTConfig(**{**VISION, "image_size": (32, 48)}), gpt2(tokenizer))
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
        vision_config=VISION,
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
    qformer = {**TEXT, "encoder_hidden_size": 16, "cross_attention_frequency": 1, "vocab_size": 9}
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=qformer,
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

    tokenizer, qformer_tokenizer = sentence_pieces(), word_pieces()
    processor = InstructBlipProcessor(
        BlipImageProcessor(size=SIDE), tokenizer, qformer_tokenizer, num_query_tokens=3
    )
    qformer = {**TEXT, "encoder_hidden_size": 16, "cross_attention_frequency": 1}
    qformer["max_position_embeddings"] = 64
    config = InstructBlipConfig(
        vision_config=VISION,
        qformer_config={**qformer, "vocab_size": len(qformer_tokenizer)},
        text_config=llama(tokenizer),
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return InstructBlipForConditionalGeneration(config), processor


def vilt() -> tuple[nn.Module, Any]:
    from transformers import (
        ViltConfig,
        ViltForQuestionAnswering,
        ViltImageProcessor,
        ViltProcessor,
    )

    tokenizer = word_pieces()
    config = ViltConfig(
        **{**VISION, **TEXT, "num_hidden_layers": 3, "max_position_embeddings": 24},
        vocab_size=len(tokenizer),
        id2label=dict(enumerate(ANSWERS)),
        label2id={answer: i for i, answer in enumerate(ANSWERS)},
    )
    images = ViltImageProcessor(size={"shortest_edge": 32}, size_divisor=8)
    return ViltForQuestionAnswering(config), ViltProcessor(images, tokenizer)


def llama(tokenizer: Any) -> dict[str, Any]:
    return {
        **TEXT,
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
