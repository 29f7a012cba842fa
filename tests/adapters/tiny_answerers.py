"""Small VQA models with random weights, for tests of questions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmcam.adapters.base.answerer import AnswerClassifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.vocabulary import QuestionTokenizer
from mmcam.adapters.networks.co_attention import CoAttention
from mmcam.adapters.networks.lstm_vqa import LstmVqa
from tests.adapters.tiny_captioners import CountedCnn, pool

WORDS = ("<pad>", "<unk>", "?", "what", "color", "is", "the", "dog", "how", "many", "dogs")
ANSWERS = ("red", "yellow", "two", "yellow and red", "no")


def answerer(kind: str = "lstm_vqa", seed: int = 0, **change: Any) -> AnswerClassifier:
    """A model of 8 x 10 pictures with a 4 x 5 map and five answers."""
    torch.manual_seed(seed)
    cnn = CountedCnn()
    sizes = {"vocabulary": len(WORDS), "answers": len(ANSWERS), "embedding": 6, "hidden": 6}
    model: nn.Module = (
        CoAttention(cnn, 8, attention=5, **sizes)
        if kind == "co_attention"
        else LstmVqa(cnn, pool(), 8, common=9, **sizes)
    )
    for parameter in model.parameters():  # large enough for answers to differ
        parameter.data.mul_(3)
    return AnswerClassifier(
        **{
            "name": kind,
            "model": model,
            "preprocess": Preprocess(resize=(8, 10), mean=(0, 0, 0), std=(1, 1, 1)),
            "labels": ANSWERS,
            "layers": ("cnn",),
            "encode_question": QuestionTokenizer(WORDS, max_tokens=8),
            "word_embedding": "embed",
            "has_attention": kind == "co_attention",
            "pads_questions": True,
            "encoder": "cnn",
            "gradient_strategy": "batched",
            **change,
        }
    )
