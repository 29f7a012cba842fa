"""The modules, the image input and the prompts of each generative model type of transformers."""

from __future__ import annotations

from typing import Any, NamedTuple

DEFAULT_PROMPT = "Describe this image in one sentence."
"""The prompt of instruction-following models unless the user gives one."""


class ModelType(NamedTuple):
    """The modules of one model type, and how its image features reach the language model.

    `feed` is "cross_attention" (a decoder attends to the image features), "prefix" (they precede
    the text) or "interleaved" (they replace the image tokens of the prompt). `prefix` is the number
    of tokens before the grid in the layers of `vision_modules`, and `attended_prefix` the number
    before the grid among the tokens that the text attends to; if None, either is inferred from the
    proportions of the picture.
    """

    feed: str
    encoder: str
    """The default layer to explain. Its output is reused after the caption is generated."""
    vision_modules: tuple[str, ...]
    """The modules whose layers have a grid."""
    text_module: str
    """The module that generates the text."""
    prefix: int | None = 0
    attended_prefix: int | None = 0
    vision_tower: str | None = None
    """The module before the encoder, which is skipped when the encoder's output is reused."""
    language_model: str = ""
    """The module that takes the embedded prompt; the whole model if empty."""
    image_layout: str = "plain"
    """How pictures are packed: a key of `images.IMAGE_LAYOUTS`."""
    default_prompt: str = ""
    """The default prompt for a caption."""
    chat_template: str = ""
    """The text around a prompt if the processor has no chat template; empty: not a chat model."""
    answer_separator: str | None = ""
    """The text between the chat template and the generated text; None: the generated text is
    tokenized independently of the prompt."""
    takes_prompt: bool = True
    """Whether a caption can follow a prompt of the user."""
    has_attention: bool = True
    """Whether the text's attention to the picture has a grid (the method "attention")."""
    question_template: str | None = None
    """The prompt for a question, with {} for its text; None: the model takes no questions."""
    single_embedding: bool = True
    """Whether the words of a prompt enter the model through one embedding only."""


LLAVA = ModelType(
    feed="interleaved",
    encoder="model.multi_modal_projector",
    vision_modules=("model.vision_tower", "model.multi_modal_projector"),
    text_module="model.language_model",
    prefix=None,
    attended_prefix=None,
    vision_tower="model.vision_tower",
    default_prompt=DEFAULT_PROMPT,
    chat_template="USER: {image}\n{prompt} ASSISTANT:",
    answer_separator=" ",
    question_template="{}",
)
QWEN = ModelType(
    feed="interleaved",
    encoder="model.visual",
    vision_modules=("model.visual",),
    text_module="model.language_model",
    image_layout="packed",
    default_prompt=DEFAULT_PROMPT,
    chat_template="<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{prompt}<|im_end|>\n"
    "<|im_start|>assistant\n",
    question_template="{}",
)
IDEFICS = ModelType(
    feed="interleaved",
    encoder="model.vision_model",
    vision_modules=("model.vision_model", "model.connector"),
    text_module="model.text_model",
    image_layout="split",
    default_prompt=DEFAULT_PROMPT,
    chat_template="<|im_start|>User:{image}{prompt}<end_of_utterance>\nAssistant:",
    answer_separator=" ",
    question_template="{}",
)
QUERIES = ModelType(
    feed="interleaved",
    encoder="vision_model",
    vision_modules=("vision_model",),
    text_module="language_model",
    prefix=1,
    language_model="language_model",
    has_attention=False,  # the text attends to queries, which have no position in the picture
    question_template="Question: {} Answer:",
)

MODEL_TYPES: dict[str, ModelType] = {
    "blip": ModelType(
        feed="cross_attention",
        encoder="vision_model",
        vision_modules=("vision_model",),
        text_module="text_decoder",
        prefix=1,
        attended_prefix=1,
    ),
    "vision-encoder-decoder": ModelType(
        feed="cross_attention",
        encoder="encoder",
        vision_modules=("encoder",),
        text_module="decoder",
        prefix=None,
        takes_prompt=False,
    ),
    "git": ModelType(
        feed="prefix",
        encoder="git.image_encoder",
        vision_modules=("git.image_encoder", "git.visual_projection"),
        text_module="git.encoder",
        prefix=1,
        attended_prefix=1,
        question_template="{}",
    ),
    "blip-2": QUERIES,
    "instructblip": QUERIES._replace(
        default_prompt="A short image description.",
        question_template="Question: {} Short answer:",
        single_embedding=False,  # the Q-Former embeds the prompt too
    ),
    "llava": LLAVA,
    "llava_next": LLAVA._replace(image_layout="anyres"),
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "paligemma": ModelType(
        feed="interleaved",
        encoder="model.vision_tower",
        vision_modules=("model.vision_tower", "model.multi_modal_projector"),
        text_module="model.language_model",
        default_prompt="caption en",
        chat_template="{image}{prompt}",
        answer_separator=None,
        question_template="answer en {}",
    ),
    "idefics3": IDEFICS,
    "smolvlm": IDEFICS,
    "florence2": ModelType(
        feed="interleaved",
        encoder="model.vision_tower",
        vision_modules=("model.vision_tower", "model.multi_modal_projector"),
        text_module="model.language_model",
        prefix=None,
        attended_prefix=1,
        default_prompt="<CAPTION>",
        question_template="{}",
    ),
}
"""Model type -> its modules, image layout and prompts."""

BLIP_VQA = MODEL_TYPES["blip"]._replace(question_template="{}")
"""BLIP for VQA: the decoder attends to the question, which attends to the picture."""

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
"""Type of a vision encoder -> its number of class and distillation tokens.

For other types, the number is inferred from the proportions of the picture.
"""


def prefix_tokens(config: Any) -> int | None:
    """The number of tokens before the grid in a vision encoder; None: not known for its type."""
    return PREFIX_TOKENS.get(config.model_type)
