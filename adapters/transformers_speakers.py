"""Generative models of transformers by hub name, folder or configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.base.weights import State
from mmcam.adapters.transformers_blip_vqa import BlipAnswerer
from mmcam.adapters.transformers_language import Tokens
from mmcam.adapters.transformers_pictures import PICTURES
from mmcam.adapters.transformers_prompts import context_of, generation_of
from mmcam.adapters.transformers_state import gather
from mmcam.adapters.transformers_text import TransformersSpeaker
from mmcam.adapters.transformers_voices import BLIP_VQA, VOICES, Voice, leading
from mmcam.errors import MissingExtra, ModelError, WeightsError

PROCESSOR = "processor"
"""The argument of a recipe that names the folder of a processor."""

Rename = Callable[[nn.Module, State], State]


def load_speaker(recipe: Recipe, config: Any, rename: Rename) -> TransformersSpeaker:
    """A model that says captions or answers, with its own processor.

    Args:
        recipe: which model; `args["processor"]` may name the folder of its processor.
        config: its configuration.
        rename: a checkpoint's weights under the names of today's code.

    Raises:
        ModelError: no processor, or a model that says nothing of pictures.
        WeightsError: the weights do not fit.
    """
    answers = "BlipForQuestionAnswering" in (config.architectures or ())
    voice = BLIP_VQA if answers else VOICES[config.model_type]
    processor = processor_of(recipe, config)
    model = _model(recipe, config)
    weights = recipe.fill(model, lambda state: rename(model, state))
    text: Any = model.get_submodule(voice.text)
    if hasattr(text, "set_attn_implementation"):
        text.set_attn_implementation("eager")  # the other kinds keep no attention
    gather(model)
    if config.model_type == "vision-encoder-decoder":
        tokens = leading(config.encoder)
        voice = voice._replace(prefix=tokens, lead=tokens)
    context, gap = context_of(processor, voice, voice.prompt)
    body: Any = model.get_submodule(voice.body)
    is_two = body.config.is_encoder_decoder
    speaker = BlipAnswerer if answers else TransformersSpeaker
    return speaker(
        name=recipe.title,
        model=model,
        language=Tokens(
            tokenizer=processor.tokenizer,
            name=recipe.title,
            ends=_ends(model, voice, config, processor.tokenizer),
            context="" if is_two else context,
            gap="" if is_two else gap,
        ),
        layers=recipe.layers or (voice.encoder,),
        encoder=voice.encoder,
        way="batched",
        batch=8 if voice.pictures == "plain" else 1,
        weights=weights,
        attends=voice.attends,
        words=_words(model, voice),
        voice=voice,
        pictures=PICTURES[voice.pictures](processor=processor.image_processor, config=config),
        processor=processor,
        positions=_positions(model, voice),
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
    return made_of(recipe, kind, config)


def made_of(recipe: Recipe, kind: Any, config: Any) -> nn.Module:
    """A model of a class of transformers, with its own weights if those are wanted.

    Raises:
        WeightsError: there are not all that it needs.
    """
    if not recipe.downloads:
        made: nn.Module = kind(config)
        return made
    model, info = kind.from_pretrained(recipe.name, config=config, output_loading_info=True)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise WeightsError(
            f"'{recipe.name}' holds no weights for {', '.join(missing[:3])}{more}, so it was not "
            "trained to say captions or answers; choose a checkpoint that was"
        )
    trained: nn.Module = model
    return trained


class Pair:
    """An image processor and a tokenizer that were saved side by side, without a processor."""

    chat_template: str | None = None

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer


def processor_of(recipe: Recipe, config: Any) -> Any:
    """The model's own processor.

    Raises:
        ModelError: there is none.
    """
    from transformers import CONFIG_MAPPING, AutoImageProcessor, AutoProcessor, AutoTokenizer

    place = recipe.args.get(PROCESSOR) or recipe.name
    if PROCESSOR not in recipe.args and not recipe.pretrained and recipe.name in CONFIG_MAPPING:
        raise ModelError(
            f"{recipe.title} has no words by itself, for an untrained model type comes without a "
            f'tokenizer; name the folder of a processor ("args": {{"{PROCESSOR}": DIR}} in a '
            "model folder's mmcam.json), or give a hub name or folder that has one"
        )
    try:
        found = AutoProcessor.from_pretrained(place)
        if hasattr(found, "image_processor") and hasattr(found, "tokenizer"):
            return found
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise MissingExtra(f"the processor of '{place}' needs a package: {reason}") from error
    except (OSError, ValueError):
        pass
    try:
        return Pair(AutoImageProcessor.from_pretrained(place), AutoTokenizer.from_pretrained(place))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"'{place}' comes without the processor of a {config.model_type} ({reason}); save it "
            "beside the model (processor.save_pretrained)"
        ) from error


def _ends(model: nn.Module, voice: Voice, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a caption, the one that a given caption ends with first.

    Raises:
        ModelError: there are none.
    """
    text = config.get_text_config(decoder=True)
    named = generation_of(model, voice).eos_token_id
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


def _words(model: nn.Module, voice: Voice) -> str | None:
    """The layer that embeds the words of a question, where there is one alone."""
    if voice.question is None or not voice.reads_once:
        return None
    table: Any = model
    table = table.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    body: Any = model.get_submodule(voice.body)
    # What reads the prompt comes first; what says the answer may use the same table.
    return f"{name}#0" if body.config.is_encoder_decoder else name


def _positions(model: nn.Module, voice: Voice) -> int | None:
    """The longest text that a model can read and say; None where there is no limit."""
    config: Any = model.get_submodule(voice.body).config
    text = config.get_text_config(decoder=True)
    for key in ("max_position_embeddings", "n_positions"):
        if isinstance(getattr(text, key, None), int):
            length: int = getattr(text, key)
            return length
    return None
