"""Generative models of transformers by hub name, folder or configuration."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.transformers.blip_vqa import BlipVqaAdapter
from mmcam.adapters.transformers.generation import GenerativeAdapter
from mmcam.adapters.transformers.hooks import install_capture_hooks
from mmcam.adapters.transformers.images import IMAGE_LAYOUTS
from mmcam.adapters.transformers.loading import build_model, convert_state_dict, load_processor
from mmcam.adapters.transformers.model_types import BLIP_VQA, MODEL_TYPES, ModelType, prefix_tokens
from mmcam.adapters.transformers.prompts import caption_context, generation_config_of
from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import ModelError


def load_generative(recipe: Recipe, config: Any) -> GenerativeAdapter:
    """A model that says captions or answers, with its own processor.

    Args:
        recipe: which model; `args["processor"]` may name the folder of its processor.
        config: its configuration.

    Raises:
        ModelError: no processor, or a model that says nothing of pictures.
        WeightsError: the weights do not fit.
    """
    answers = "BlipForQuestionAnswering" in (config.architectures or ())
    model_type = BLIP_VQA if answers else MODEL_TYPES[config.model_type]
    processor = load_processor(recipe, config)
    model = _model(recipe, config)
    weights = recipe.fill(model, partial(convert_state_dict, type(model), config))
    text: Any = model.get_submodule(model_type.text)
    if hasattr(text, "set_attn_implementation"):
        text.set_attn_implementation("eager")  # the other kinds keep no attention
    install_capture_hooks(model)
    if config.model_type == "vision-encoder-decoder":
        tokens = prefix_tokens(config.encoder)
        model_type = model_type._replace(prefix=tokens, lead=tokens)
    context, gap = caption_context(processor, model_type, model_type.prompt)
    body: Any = model.get_submodule(model_type.body)
    is_two = body.config.is_encoder_decoder
    speaker = BlipVqaAdapter if answers else GenerativeAdapter
    return speaker(
        name=recipe.title,
        model=model,
        tokenizer=TransformersTokenizer(
            tokenizer=processor.tokenizer,
            name=recipe.title,
            ends=_ends(model, model_type, config, processor.tokenizer),
            context="" if is_two else context,
            gap="" if is_two else gap,
        ),
        layers=recipe.layers or (model_type.encoder,),
        encoder=model_type.encoder,
        gradient_strategy="batched",
        batch=8 if model_type.pictures == "plain" else 1,
        weights=weights,
        has_attention=model_type.has_attention,
        words=_words(model, model_type),
        model_type=model_type,
        pictures=IMAGE_LAYOUTS[model_type.pictures](
            processor=processor.image_processor, config=config
        ),
        processor=processor,
        positions=_positions(model, model_type),
    )


def _model(recipe: Recipe, config: Any) -> nn.Module:
    from transformers import AutoModelForImageTextToText, BlipForQuestionAnswering

    kind = AutoModelForImageTextToText._model_mapping[type(config)]
    named = config.architectures or [kind.__name__]
    if BlipForQuestionAnswering.__name__ in named:
        kind = BlipForQuestionAnswering
    elif kind.__name__ not in named:
        raise ModelError(
            f"'{recipe.name}' is a {named[0]}, which says no captions; choose a checkpoint of "
            f"{kind.__name__}"
        )
    return build_model(recipe, kind, config)


def _ends(model: nn.Module, model_type: ModelType, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a caption, the one that a given caption ends with first.

    Raises:
        ModelError: there are none.
    """
    text = config.get_text_config(decoder=True)
    named = generation_config_of(model, model_type).eos_token_id
    if config.model_type == "blip":
        named = text.sep_token_id
    for found in (named, getattr(text, "eos_token_id", None), tokenizer.eos_token_id):
        if found is not None:
            ends = tuple(found) if isinstance(found, (list, tuple)) else (int(found),)
            own = tokenizer.eos_token_id
            return tuple(sorted(ends, key=lambda end: end != own))
    raise ModelError(
        f"the configuration of this {config.model_type} names no token that ends a caption; set "
        "eos_token_id in its generation_config.json"
    )


def _words(model: nn.Module, model_type: ModelType) -> str | None:
    """The layer that embeds the words of a question, where there is one alone."""
    if model_type.question is None or not model_type.reads_once:
        return None
    table: Any = model
    table = table.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    body: Any = model.get_submodule(model_type.body)
    # What reads the prompt comes first; what says the answer may use the same table.
    return f"{name}#0" if body.config.is_encoder_decoder else name


def _positions(model: nn.Module, model_type: ModelType) -> int | None:
    """The longest text that a model can read and say; None where there is no limit."""
    config: Any = model.get_submodule(model_type.body).config
    text = config.get_text_config(decoder=True)
    for key in ("max_position_embeddings", "n_positions"):
        if isinstance(getattr(text, key, None), int):
            length: int = getattr(text, key)
            return length
    return None
