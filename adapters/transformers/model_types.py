"""What each generative model type of transformers calls its parts, and how it takes a picture."""

from __future__ import annotations

from typing import Any, NamedTuple

DEFAULT_PROMPT = "Describe this image in one sentence."
"""What models that follow instructions are asked unless the user says otherwise."""


class ModelType(NamedTuple):
    """The modules of one model type, and how its image features reach the language model.

    `feed` is "cross_attention" (a decoder attends to the image features), "prefix" (they stand
    before the text) or "interleaved" (they replace the image tokens of the prompt). `prefix` is the
    number of tokens before the grid in the layers of `image`, and `lead` the number before the grid
    of the tokens which the text attends to; None: whatever fits the proportions of the picture.
    """

    feed: str
    encoder: str
    """The layer that is explained, and whose output is used again after the caption was said."""
    image: tuple[str, ...]
    """The modules whose layers have a grid."""
    text: str
    """The part that says the words."""
    prefix: int | None = 0
    lead: int | None = 0
    tower: str | None = None
    """What runs before the encoder and need not run again with it."""
    body: str = ""
    """The part that is given the embedded prompt; the whole model when empty."""
    pictures: str = "plain"
    """How pictures are packed: a key of `images.IMAGE_LAYOUTS`."""
    prompt: str = ""
    """The usual prompt for a caption."""
    chat: str = ""
    """A prompt's surroundings where the processor has no chat template; empty: it has no chat."""
    gap: str | None = ""
    """What stands between those surroundings and what the model says; None: its tokens are those
    of a text by itself."""
    takes_prompt: bool = True
    has_attention: bool = True
    question: str | None = None
    """A question as the model is asked it, with {} for its text; None: it takes none."""
    reads_once: bool = True
    """Whether the words of a prompt come in by one embedding alone."""


LLAVA = ModelType(
    feed="interleaved",
    encoder="model.multi_modal_projector",
    image=("model.vision_tower", "model.multi_modal_projector"),
    text="model.language_model",
    prefix=None,
    lead=None,
    tower="model.vision_tower",
    prompt=DEFAULT_PROMPT,
    chat="USER: {image}\n{prompt} ASSISTANT:",
    gap=" ",
    question="{}",
)
QWEN = ModelType(
    feed="interleaved",
    encoder="model.visual",
    image=("model.visual",),
    text="model.language_model",
    pictures="packed",
    prompt=DEFAULT_PROMPT,
    chat="<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{prompt}<|im_end|>\n"
    "<|im_start|>assistant\n",
    question="{}",
)
IDEFICS = ModelType(
    feed="interleaved",
    encoder="model.vision_model",
    image=("model.vision_model", "model.connector"),
    text="model.text_model",
    pictures="split",
    prompt=DEFAULT_PROMPT,
    chat="<|im_start|>User:{image}{prompt}<end_of_utterance>\nAssistant:",
    gap=" ",
    question="{}",
)
QUERIES = ModelType(
    feed="interleaved",
    encoder="vision_model",
    image=("vision_model",),
    text="language_model",
    prefix=1,
    body="language_model",
    has_attention=False,  # its text attends to queries, which have no place in the picture
    question="Question: {} Answer:",
)

MODEL_TYPES: dict[str, ModelType] = {
    "blip": ModelType(
        feed="cross_attention",
        encoder="vision_model",
        image=("vision_model",),
        text="text_decoder",
        prefix=1,
        lead=1,
    ),
    "vision-encoder-decoder": ModelType(
        feed="cross_attention",
        encoder="encoder",
        image=("encoder",),
        text="decoder",
        prefix=None,
        takes_prompt=False,
    ),
    "git": ModelType(
        feed="prefix",
        encoder="git.image_encoder",
        image=("git.image_encoder", "git.visual_projection"),
        text="git.encoder",
        prefix=1,
        lead=1,
        question="{}",
    ),
    "blip-2": QUERIES,
    "instructblip": QUERIES._replace(
        prompt="A short image description.",
        question="Question: {} Short answer:",
        reads_once=False,  # its queries read it too
    ),
    "llava": LLAVA,
    "llava_next": LLAVA._replace(pictures="anyres"),
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "paligemma": ModelType(
        feed="interleaved",
        encoder="model.vision_tower",
        image=("model.vision_tower", "model.multi_modal_projector"),
        text="model.language_model",
        prompt="caption en",
        chat="{image}{prompt}",
        gap=None,
        question="answer en {}",
    ),
    "idefics3": IDEFICS,
    "smolvlm": IDEFICS,
    "florence2": ModelType(
        feed="interleaved",
        encoder="model.vision_tower",
        image=("model.vision_tower", "model.multi_modal_projector"),
        text="model.language_model",
        prefix=None,
        lead=1,
        prompt="<CAPTION>",
        question="{}",
    ),
}
"""Model type -> how it speaks."""

BLIP_VQA = MODEL_TYPES["blip"]._replace(question="{}")
"""BLIP's answers: its decoder attends to the question, which has attended to the picture."""

PREFIX_TOKENS = {
    "vit": 1,
    "vit_msn": 1,
    "deit": 2,
    "beit": 1,
    "data2vec-vision": 1,
    "dinov2": 1,
    "clip_vision_model": 1,
    "siglip_vision_model": 0,
    "swin": 0,
    "swinv2": 0,
}
"""Type of a vision encoder -> its class and distillation tokens; others by proportions."""


def prefix_tokens(config: Any) -> int | None:
    """How many tokens come before the grid in a vision encoder with this configuration."""
    return PREFIX_TOKENS.get(config.model_type)
