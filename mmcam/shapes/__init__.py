"""Synthetic pictures and clips with known ground truth: text, answers, actions and pixel masks.

The arguments, including the seed, determine each scene and clip completely.

>>> from mmcam import shapes
>>> scene = shapes.scene(7)                 # uint8 pixels [96 96 3], and a mask for each object
>>> shapes.caption(scene).text
>>> [(question.text, question.answer) for question in shapes.questions(scene)]
>>> clip = shapes.clip(7)                   # uint8 pixels [16 64 64 3]; clip.action, clip.actor
"""

from mmcam.shapes.captions import Caption, Word, caption
from mmcam.shapes.clips import ActionClip, ClipObject, clip
from mmcam.shapes.questions import Question, questions
from mmcam.shapes.scenes import SPLITS, Part, Scene, Thing, scene
from mmcam.shapes.words import ACTIONS, ANSWERS, COLOURS, KINDS, QUESTION_WORDS, SHAPES, VOCABULARY

__all__ = [
    "ACTIONS",
    "ANSWERS",
    "COLOURS",
    "KINDS",
    "QUESTION_WORDS",
    "SHAPES",
    "SPLITS",
    "VOCABULARY",
    "ActionClip",
    "Caption",
    "ClipObject",
    "Part",
    "Question",
    "Scene",
    "Thing",
    "Word",
    "caption",
    "clip",
    "questions",
    "scene",
]
