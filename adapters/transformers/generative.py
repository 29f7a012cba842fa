"""Generative models of transformers by hub name, folder or configuration."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.transformers.blip_vqa import BlipVqaAdapter
from mmcam.adapters.transformers.generation import GenerativeAdapter
from mmcam.adapters.transformers.hooks import install_capture_hooks
from mmcam.adapters.transformers.images import IMAGE_LAYOUTS
from mmcam.adapters.transformers.loading import (
    LoadedModel,
    build_model,
    load_processor,
    load_weights,
)
from mmcam.adapters.transformers.model_types import BLIP_VQA, MODEL_TYPES, ModelType, prefix_tokens
from mmcam.adapters.transformers.prompts import caption_context, generation_config_of
from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import ModelError


def read_generative(recipe: Recipe, config: Any) -> LoadedModel:
    """A model that generates captions or answers, with its own processor.

    Args:
        recipe: which model; `args["processor"]` may name the folder of its processor.
        config: its configuration.

    Raises:
        ModelError: no processor, or a model that generates no text about pictures.
        WeightsError: the weights do not fit, are missing or cannot be downloaded.
        MissingExtra: the processor needs a package that is not installed.
    """
    processor = load_processor(recipe, config)
    model = _model(recipe, config)
    return LoadedModel(model, processor, load_weights(recipe, model, config))


def adapt_generative(recipe: Recipe, loaded: LoadedModel) -> GenerativeAdapter:
    """The adapter of a model that generates captions or answers.

    Raises:
        ModelError: the configuration names no token that ends a caption.
    """
    from transformers import BlipForQuestionAnswering

    model: Any = loaded.model
    config, processor = model.config, loaded.processor
    answers = isinstance(model, BlipForQuestionAnswering)
    model_type = BLIP_VQA if answers else MODEL_TYPES[config.model_type]
    install_capture_hooks(model)
    if config.model_type == "vision-encoder-decoder":
        prefix = prefix_tokens(config.encoder)
        model_type = model_type._replace(prefix=prefix, attended_prefix=prefix)
    context, separator = caption_context(processor, model_type, model_type.default_prompt)
    language_model: Any = model.get_submodule(model_type.language_model)
    is_encoder_decoder = language_model.config.is_encoder_decoder
    adapter_class = BlipVqaAdapter if answers else GenerativeAdapter
    return adapter_class(
        name=recipe.title,
        model=model,
        tokenizer=TransformersTokenizer(
            tokenizer=processor.tokenizer,
            name=recipe.title,
            end_tokens=_end_tokens(model, model_type, config, processor.tokenizer),
            context="" if is_encoder_decoder else context,
            separator="" if is_encoder_decoder else separator,
        ),
        layers=recipe.layers or (model_type.encoder,),
        encoder=model_type.encoder,
        gradient_strategy="batched",
        batch=8 if model_type.image_layout == "plain" else 1,
        weights=loaded.weights,
        has_attention=model_type.has_attention,
        word_embedding=_word_embedding(model, model_type),
        model_type=model_type,
        images=IMAGE_LAYOUTS[model_type.image_layout](
            processor=processor.image_processor, config=config
        ),
        processor=processor,
        max_positions=_max_positions(model, model_type),
    )


def _model(recipe: Recipe, config: Any) -> nn.Module:
    from transformers import AutoModelForImageTextToText, BlipForQuestionAnswering

    model_class = AutoModelForImageTextToText._model_mapping[type(config)]
    architectures = config.architectures or [model_class.__name__]
    if BlipForQuestionAnswering.__name__ in architectures:
        model_class = BlipForQuestionAnswering
    elif model_class.__name__ not in architectures:
        raise ModelError(
            f"'{recipe.name}' is a {architectures[0]}, which generates no captions; choose a "
            f"checkpoint of {model_class.__name__}"
        )
    return build_model(recipe, model_class, config)


def _end_tokens(
    model: nn.Module, model_type: ModelType, config: Any, tokenizer: Any
) -> tuple[int, ...]:
    """The tokens that end a caption; the first one is appended to given captions.

    Raises:
        ModelError: there are none.
    """
    text_config = config.get_text_config(decoder=True)
    eos = generation_config_of(model, model_type).eos_token_id
    if config.model_type == "blip":
        eos = text_config.sep_token_id
    for ids in (eos, getattr(text_config, "eos_token_id", None), tokenizer.eos_token_id):
        if ids is not None:
            end_tokens = tuple(ids) if isinstance(ids, (list, tuple)) else (int(ids),)
            preferred = tokenizer.eos_token_id
            return tuple(sorted(end_tokens, key=lambda token: token != preferred))
    raise ModelError(
        f"the configuration of this {config.model_type} names no token that ends a caption; set "
        "eos_token_id in its generation_config.json"
    )


def _word_embedding(model: nn.Module, model_type: ModelType) -> str | None:
    """The layer that embeds the words of a question; None: no questions, or several such layers."""
    if model_type.question_template is None or not model_type.single_embedding:
        return None
    transformers_model: Any = model
    embedding = transformers_model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embedding)
    language_model: Any = model.get_submodule(model_type.language_model)
    # The decoder may share the embedding; the first call is the encoder's, for the prompt.
    return f"{name}#0" if language_model.config.is_encoder_decoder else name


def _max_positions(model: nn.Module, model_type: ModelType) -> int | None:
    """The maximum number of tokens of prompt and generated text, or None if unlimited."""
    config: Any = model.get_submodule(model_type.language_model).config
    text_config = config.get_text_config(decoder=True)
    for key in ("max_position_embeddings", "n_positions"):
        if isinstance(getattr(text_config, key, None), int):
            length: int = getattr(text_config, key)
            return length
    return None
