"""Worlds with known answers: seeded pictures and clips of which every pixel is accounted for.

>>> from mmcam import shapes
>>> scene = shapes.scene(7)                 # uint8 pixels [96 96 3], and a mask for each object
>>> shapes.caption(scene).text
>>> [(ask.text, ask.answer) for ask in shapes.questions(scene)]
>>> clip = shapes.clip(7)                   # uint8 pixels [16 64 64 3]; clip.action, clip.actor
"""

from mmcam.shapes.captions import Caption, Word, caption
from mmcam.shapes.clips import ActionClip, Mover, clip
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
    "Mover",
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
