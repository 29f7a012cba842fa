"""A model of transformers that somebody has in memory, and its processor in the form needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcam.adapters.transformers.classifiers import settings_of
from mmcam.adapters.transformers.loading import LoadedModel, ProcessorPair
from mmcam.adapters.transformers.model_types import MODEL_TYPES
from mmcam.errors import ModelError, nearest


def given_model(model: Any, processor: Any, known: Sequence[str]) -> LoadedModel:
    """A model in memory and its processor, after a check of both.

    Args:
        model: the model.
        processor: see `adapt`.
        known: the known model types, for errors.

    Raises:
        ModelError: the model is not one of transformers, its class neither classifies nor generates
            text about pictures, or the processor lacks the part that the model needs.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise ModelError(
            f"a {type(model).__name__} is not a model of transformers; give the PreTrainedModel "
            "itself (that inside a wrapper: model.module, model.get_base_model()), or use "
            "mmcam.wrap for another module"
        )
    if _is_classifier(model, known):
        return LoadedModel(model, settings_of(_image_processor(model, processor)))
    return LoadedModel(model, _combined_processor(model, processor))


def _is_classifier(model: Any, known: Sequence[str]) -> bool:
    """Whether the model classifies pictures or clips; if not, it takes or generates text.

    Raises:
        ModelError: the model's class does neither.
    """
    from transformers import (
        AutoModelForImageClassification,
        AutoModelForImageTextToText,
        AutoModelForVideoClassification,
        BlipForQuestionAnswering,
        ViltForQuestionAnswering,
    )

    kind, model_type = type(model.config), model.config.model_type
    if model_type in MODEL_TYPES or model_type == "vilt":
        answerers = (BlipForQuestionAnswering, ViltForQuestionAnswering)
        classes = (*answerers, *_classes(AutoModelForImageTextToText, kind))
        is_classifier = False
    else:
        autos = (AutoModelForImageClassification, AutoModelForVideoClassification)
        classes = tuple(each for auto in autos for each in _classes(auto, kind))
        is_classifier = True
    if isinstance(model, classes):
        return is_classifier
    usable = [each.__name__ for each in classes if each.config_class is kind]
    reason = (
        f"of this type mmcam explains {', '.join(usable)}"
        if usable
        else f"mmcam knows no model of type '{model_type}'; nearest: {nearest(model_type, known)}"
    )
    raise ModelError(
        f"a {type(model).__name__} neither classifies pictures or clips nor generates captions or "
        f"answers; {reason}. Use mmcam.wrap, wrap_captioner or wrap_vqa for other models"
    )


def _classes(auto: Any, config_class: type) -> tuple[Any, ...]:
    """The model classes of a configuration's class in one of the Auto classes; may be empty."""
    found = auto._model_mapping.get(config_class, ())
    return tuple(found) if isinstance(found, (list, tuple)) else (found,)


def _image_processor(model: Any, processor: Any) -> Any:
    """The image or video processor of a classifier, given alone or as a part of a processor.

    Raises:
        ModelError: there is none.
    """
    from transformers import ImageProcessingMixin

    parts = processor if isinstance(processor, (tuple, list)) else (processor,)
    for part in parts:
        for name in ("image_processor", "video_processor"):
            candidate = getattr(part, name, part)
            if isinstance(candidate, ImageProcessingMixin):  # as are video processors
                return candidate
    raise ModelError(
        f"{_described(processor)} has no image processor, which a {type(model).__name__} needs; "
        "give AutoImageProcessor.from_pretrained(...), or use mmcam.wrap(model, prepare=transform)"
    )


def _combined_processor(model: Any, processor: Any) -> Any:
    """The processor of a model with text: combined, or an image processor and a tokenizer.

    Raises:
        ModelError: a part is missing, or the two parts are given in the other order.
    """
    if isinstance(processor, (tuple, list)) and len(processor) == 2:
        from transformers import ImageProcessingMixin, PreTrainedTokenizerBase

        image_processor, tokenizer = processor
        if isinstance(image_processor, ImageProcessingMixin) and isinstance(
            tokenizer, PreTrainedTokenizerBase
        ):
            return ProcessorPair(image_processor, tokenizer)
    elif hasattr(processor, "image_processor") and hasattr(processor, "tokenizer"):
        return processor
    raise ModelError(
        f"{_described(processor)} is not a processor of pictures and text, which a "
        f"{type(model).__name__} needs; give AutoProcessor.from_pretrained(...), or a pair "
        "(image processor, tokenizer)"
    )


def _described(processor: Any) -> str:
    """A processor, or each part of several, by the names of their classes."""
    if isinstance(processor, (tuple, list)):
        return f"({', '.join(type(part).__name__ for part in processor)})"
    return f"a {type(processor).__name__}"
