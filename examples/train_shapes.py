"""Train the packaged models from scratch on the scenes of `mmcam.shapes`.

    python examples/train_shapes.py caption --out data/captioner
    python examples/train_shapes.py vqa --out data/vqa
    python examples/train_shapes.py action --out data/action

Each learns from training seeds and is measured on test seeds. Two runs on one machine with the same
seed and threads give the same weights. The captioner's CNN and the model of actions learn first
from things that are seen by themselves; the answerer's CNN begins as the captioner's.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapes_training as st
import torch
import torch.nn.functional as F
from torch import Tensor

import mmcam
from mmcam import shapes
from mmcam.adapters.networks.c3d import C3D
from mmcam.adapters.networks.cnn import split_cnn
from mmcam.adapters.networks.lstm_vqa import LstmVqa
from mmcam.adapters.networks.show_and_tell import ShowAndTell
from mmcam.adapters.networks.small_cnn import SmallCNN
from mmcam.demo import packaged

SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
WORDS = (*SPECIAL, *shapes.VOCABULARY)
ASKING = ("<pad>", "<unk>", *shapes.QUESTION_WORDS)
RECIPE = {"resize": 96, "crop": 96, "mean": [0.5] * 3, "std": [0.25] * 3}
CNN: dict[str, Any] = {}
FEATURES = 384
ASKING_CNN: dict[str, Any] = {"features": 640}
ACTION_SIDE = 64
NEAR = 40


PARTS = 16
"""Number, size, texture, two colours, shape and relation of two things; two of the background."""


def parts_of(text: str) -> list[str]:
    """The words of a caption by their part in its grammar; padding where there is none."""
    *subject, _, _, tone, pattern, _ = text.split()
    found, start = ["<pad>"] * (PARTS - 2) + [tone, pattern], 0
    for word in subject:
        if word in _PART:
            part = start + _PART[word]
            part += word in shapes.COLOURS and found[part] != "<pad>"
            found[part] = word
            start = 7 if _PART[word] >= 5 else start
    return found


_PART = {
    **dict.fromkeys(["two", "three"], 0),
    **dict.fromkeys(["large", "small"], 1),
    **dict.fromkeys(["striped", "dotted", "checked"], 2),
    **dict.fromkeys(shapes.COLOURS, 3),
    **dict.fromkeys([*shapes.SHAPES, *shapes.SHAPES.values(), "things"], 5),
    **dict.fromkeys(["left", "right", "above", "below", "among"], -1),
}
"""The part of each word of a thing; a relation comes last of the first thing."""


LOOKS = (
    tuple(shapes.SHAPES),
    ("large", "small"),
    ("plain", "striped", "dotted", "checked", "left", "top"),
    tuple(shapes.COLOURS),
    tuple(shapes.COLOURS),
)
"""What is told of one thing: shape, size, texture or where its first colour lies, both colours."""

CROP = 48


def lesson(course: st.Course, things: st.World) -> SmallCNN:
    """A CNN that has learnt to name what one thing looks like, seen by itself.

    As the papers' captioners start from a classifier of ImageNet: from sentences alone a CNN
    learns shapes and textures slowly.
    """
    looks = [one["look"] for one in things.told]
    right = torch.tensor([[n.index(w) for n, w in zip(LOOKS, look, strict=True)] for look in looks])
    sizes = [len(names) for names in LOOKS]
    torch.manual_seed(course.seed)
    cnn = SmallCNN(**CNN)
    # The map of a crop is smaller, so all that knows of places is another's.
    seer = SmallCNN(sum(sizes), **{**CNN, "looks": 4, "cells": CROP // 8})
    seer.trunk, seer.mix = cnn.trunk, cnn.mix
    seer = seer.to(memory_format=torch.channels_last)

    def losses(rows: Tensor) -> tuple[Tensor, ...]:
        left, top = torch.randint(st.WINDOW - CROP + 1, (2,)).tolist()
        pixels = st.pictures(things.pixels, rows)[..., top : top + CROP, left : left + CROP]
        found = seer(pixels).float().split(sizes, 1)
        return tuple(F.cross_entropy(one, right[rows, i]) for i, one in enumerate(found))

    st.learn(seer, losses, len(things), course)
    return cnn


def caption(out: Path, course: st.Course, world: st.World, cnn: SmallCNN) -> None:
    """Show-and-Tell."""
    known = {word: token for token, word in enumerate(WORDS)}
    told = [[known[word] for word in one["caption"].split()] for one in world.told]
    tokens = torch.zeros(len(told), max(map(len, told)) + 1, dtype=torch.long)
    for row, said in enumerate(told):
        tokens[row, : len(said) + 1] = torch.tensor([*said, known["<end>"]])
    torch.manual_seed(course.seed)
    args = {"embedding": 256, "hidden": 256}
    trunk, head = split_cnn(cnn, "trunk", "small")
    model = ShowAndTell(trunk, head, FEATURES, len(WORDS), start=known["<start>"], **args)
    st.remember(model.lstm)
    # While it learns, the picture's vector must also tell, for each place of the grammar, the word
    # there: by the LSTM alone the CNN learns slowly.
    model.parts = torch.nn.Linear(FEATURES, PARTS * len(WORDS))
    parsed = torch.tensor([[known[w] for w in parts_of(one["caption"])] for one in world.told])
    model = model.to(memory_format=torch.channels_last)

    def losses(rows: Tensor) -> tuple[Tensor, ...]:
        said = tokens[rows]
        said = said[:, : int((said != 0).sum(1).max())]
        vector = pool(model.cnn(st.pictures(world.pixels, rows)))
        logits = model.out(model.teacher_force(vector, said)[0])
        parts = model.parts(vector).float().unflatten(1, (PARTS, -1)).flatten(0, 1)
        grammar = F.cross_entropy(parts, parsed[rows].flatten())
        right = F.cross_entropy(logits.flatten(0, 1).float(), said.flatten(), ignore_index=0)
        return right, 2 * grammar

    pool, model.pool = model.pool, torch.nn.Identity()
    st.learn(model, losses, len(world), course)
    model.pool = pool
    del model.parts
    manifest = {"family": "show_and_tell", "cnn": {"family": "small", "args": CNN}, "args": args}
    manifest |= {"preprocess": RECIPE, "layer": "cnn"}
    st.save_folder(out, model, manifest, vocabulary=WORDS)


@torch.inference_mode()
def measure_caption(folder: Path, seeds: range) -> dict[str, float]:
    """Shares of words said right, given the true words before them, and of whole captions."""
    adapter = mmcam.load(folder)
    model: Any = adapter.model
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(seeds), 100):
        scenes = [shapes.scene(seed) for seed in seeds[start : start + 100]]
        told = [shapes.caption(scene) for scene in scenes]
        pixels = st.pictures(np.stack([scene.pixels for scene in scenes]), torch.arange(len(told)))
        ends = [[*(word.text for word in one.words), "<end>"] for one in told]
        longest = max(map(len, ends))
        tokens = torch.zeros(len(told), longest, dtype=torch.long)
        for row, words in enumerate(ends):
            tokens[row, : len(words)] = torch.tensor([WORDS.index(word) for word in words])
        guesses = model(pixels, tokens).argmax(2)
        state = model.initial_state(model.cnn(pixels))
        last, said = torch.full((len(told),), model.start), []
        for _ in range(longest):
            logits, state = model.step(state, last)
            last = logits.argmax(1)
            said.append(last)
        spoken = torch.stack(said, 1)
        for row, one in enumerate(told):
            for word in one.words:
                hit = bool(guesses[row, word.position] == tokens[row, word.position])
                right["words"].append(hit)
                if word.mask is not None:
                    right["visual words"].append(hit)
                    right[f"{word.kind} words"].append(hit)
            length = len(one.words) + 1
            right["captions"].append(bool((spoken[row] == tokens[row])[:length].all()))
    return {name: round(float(np.mean(found)), 4) for name, found in right.items()}


def asking_cnn(captioner: Path) -> SmallCNN:
    """A captioner's CNN with a longer vector, which is yet to be learnt.

    A caption says little of what a question may ask for.
    """
    torch.manual_seed(0)
    cnn = SmallCNN(**ASKING_CNN)
    known = mmcam.load(captioner).model.get_submodule("cnn.net").state_dict()
    own = cnn.state_dict()
    fits = {name: value for name, value in known.items() if value.shape == own[name].shape}
    cnn.load_state_dict({**own, **fits})
    return cnn


NAMES = (*shapes.SHAPES, *shapes.COLOURS)
"""What is to be told of a thing's look while places are learnt."""


def places_of(world: st.World) -> Tensor:
    """For each picture and name `[picture, name, 4]`: is it there, just once, and then where."""
    found = torch.zeros(len(world), len(NAMES), 4)
    for row, one in enumerate(world.told):
        for place, name in enumerate(NAMES):
            at = [(x, y) for names, x, y in one["things"] if name in names]
            if at:
                found[row, place, 0] = 1
            if len(at) == 1:
                found[row, place, 1:] = torch.tensor([1.0, *at[0]])
    return found


def vqa(out: Path, course: st.Course, world: st.World, cnn: SmallCNN, reading: st.Course) -> None:
    """LSTM and CNN for questions; all questions of a picture at once.

    While it learns, the picture's vector must also tell what is where: by the answers alone it
    learns places slowly. What comes behind the CNN's map goes on learning when the map is good
    enough; that takes half the time.
    """
    texts = sorted({text for one in world.told for text, _ in one["questions"]})
    number = {text: row for row, text in enumerate(texts)}
    lengths = torch.tensor([len(text.split()) for text in texts])
    tokens = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
    for row, text in enumerate(texts):
        words = [ASKING.index(word) for word in text.split()]
        tokens[row, : len(words)] = torch.tensor(words)
    torch.manual_seed(course.seed)
    args = {"embedding": 128, "hidden": 128, "layers": 1, "common": 768, "answer_hidden": 384}
    args |= {"normalised": False}
    trunk, head = split_cnn(cnn, "trunk", "small")
    sizes = (ASKING_CNN["features"], len(ASKING), len(shapes.ANSWERS))
    model = LstmVqa(trunk, head, *sizes, **args)
    st.remember(model.lstm)
    with torch.no_grad():  # questions that differ in one word must begin far enough apart
        model.lstm.weight_ih_l0.mul_(4)
        model.q_proj.weight.mul_(7)
    model.places = torch.nn.Linear(ASKING_CNN["features"], 3 * len(NAMES))
    places = places_of(world)
    model = model.to(memory_format=torch.channels_last)

    def losses(rows: Tensor, see: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        asked = [(row, *one) for row, at in enumerate(rows) for one in world.told[at]["questions"]]
        shares = torch.zeros(len(asked), len(shapes.ANSWERS))
        for place, (_, _, answers) in enumerate(asked):
            for answer in answers:
                shares[place, shapes.ANSWERS.index(answer)] = 1 / len(answers)
        # A question that is asked of many pictures is read once.
        read, which = torch.tensor([number[text] for _, text, _ in asked]).unique(
            return_inverse=True
        )
        questions = model.encode_question(tokens[read], lengths[read])[which]
        vectors = model.pool(see(st.pictures(world.pixels, rows)))
        logits = model.classify(vectors[[row for row, _, _ in asked]], questions)
        right = -(logits.float().log_softmax(1) * shares).sum() / len(asked)
        said = model.places(vectors).float().unflatten(1, (len(NAMES), 3))
        there, once, where = places[rows].split([1, 1, 2], 2)
        named = F.binary_cross_entropy_with_logits(said[..., :1], there)
        off = F.smooth_l1_loss(said[..., 1:], where, reduction="none", beta=0.1)
        return right, named, (off * once).sum() / once.sum()

    st.learn(model, partial(losses, see=model.cnn), len(world), course)
    trunk, model.cnn = model.cnn, torch.nn.Identity()

    @torch.no_grad()
    def see(pixels: Tensor) -> Tensor:
        maps: Tensor = trunk(pixels)
        return maps

    st.learn(model, partial(losses, see=see), len(world), reading)
    model.cnn = trunk
    del model.places
    manifest = {"family": "lstm_vqa", "cnn": {"family": "small", "args": ASKING_CNN}, "args": args}
    manifest |= {"preprocess": RECIPE, "layer": "cnn"}
    st.save_folder(out, model, manifest, vocabulary=ASKING, labels=shapes.ANSWERS)


@torch.inference_mode()
def measure_vqa(folder: Path, seeds: range) -> dict[str, float]:
    """Shares of right answers, of all questions and of each kind."""
    model, right = mmcam.load(folder).model, defaultdict(list)
    for seed in seeds:
        scene = shapes.scene(seed)
        asked = shapes.questions(scene)
        if not asked:
            continue
        words = [[ASKING.index(word) for word in ask.text.split()] for ask in asked]
        tokens = torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, words)), True)
        lengths = torch.tensor([len(one) for one in words])
        logits = model(st.pictures(scene.pixels[None], torch.tensor([0])), tokens, lengths)
        for ask, guess in zip(asked, logits.argmax(1).tolist(), strict=True):
            for kind in ("answers", ask.kind):
                right[kind].append(shapes.ANSWERS[guess] in ask.answers)
    return {name: round(float(np.mean(found)), 4) for name, found in right.items()}


def action(out: Path, course: st.Course, world: st.World, near: st.Course) -> None:
    """C3D, with batch norm while it learns, which is then folded into its weights.

    First it sees but the surroundings of the one that acts: the convolutions learn what an action
    looks like from a third of the pixels, before they have to find it.
    """
    labels = torch.tensor([shapes.ACTIONS.index(one["action"]) for one in world.told])
    mirrored = torch.tensor([shapes.ACTIONS.index(_mirrored(name)) for name in shapes.ACTIONS])
    places = [one["place"] for one in world.told]
    torch.manual_seed(course.seed)
    convolutions: dict[str, torch.nn.Module] = {}
    for side, learning in ((NEAR, near), (ACTION_SIDE, course)):
        size = (16, side, side)
        args = {"channels": (8, 16, 32, 64, 64), "hidden": 128, "size": size}
        model = C3D(len(shapes.ACTIONS), **args)
        plain = {
            name: part
            for name, part in model.named_children()
            if name.startswith(("conv", "fc")) and name != "fc8"
        }
        for name, part in plain.items():
            own = _Full(part) if "5" in name else part
            setattr(model, name, convolutions.get(name, torch.nn.Sequential(own, _norm(part))))
        convolutions = {name: model.get_submodule(name) for name in plain if "conv" in name}
        with torch.no_grad():
            model.fc8.weight.mul_(0.1)
        model.drop6.p = model.drop7.p = 0.1
        model = model.to(memory_format=torch.channels_last_3d)

        def losses(rows: Tensor, model: C3D = model, side: int = side) -> tuple[Tensor, ...]:
            clips = st.pictures(world.pixels, rows)
            right = labels[rows]
            if side < ACTION_SIDE:
                clips = torch.stack(
                    [_around(clip, *places[i], side) for clip, i in zip(clips, rows, strict=True)]
                )
            # Every other clip is seen in a mirror.
            clips[::2] = clips[::2].flip(-1)
            right[::2] = mirrored[right[::2]]
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
            return (F.cross_entropy(model(clips).float(), right, label_smoothing=0.05),)

        st.learn(model, losses, len(world), learning)
    for name, part in plain.items():
        own, norm = model.get_submodule(name)
        own = own.layer if isinstance(own, _Full) else own
        linear = isinstance(part, torch.nn.Linear)
        fuse = torch.nn.utils.fuse_linear_bn_eval if linear else torch.nn.utils.fuse_conv_bn_eval
        setattr(model, name, fuse(own, norm))
    recipe = {**RECIPE, "resize": ACTION_SIDE, "crop": ACTION_SIDE, "frames": 16}
    manifest = {"family": "c3d", "args": {"classes": len(shapes.ACTIONS), **args}}
    # The last maps have 4 x 4 cells a slice; those of conv4b have 8 x 8.
    manifest |= {"preprocess": recipe, "layer": "relu4b"}
    st.save_folder(out, model, manifest, labels=shapes.ACTIONS)


def _around(clip: Tensor, x: int, y: int, side: int) -> Tensor:
    """The window of a clip `[3 time h w]` that has a place as near its middle as it can."""
    left, top = (min(max(at - side // 2, 0), ACTION_SIDE - side) for at in (x, y))
    return clip[..., top : top + side, left : left + side]


def _norm(layer: torch.nn.Module) -> torch.nn.Module:
    """The batch norm that stands behind a layer while it learns."""
    if isinstance(layer, torch.nn.Linear):
        return torch.nn.BatchNorm1d(layer.out_features)
    return torch.nn.BatchNorm3d(layer.out_channels)


class _Full(torch.nn.Module):
    """A layer in full precision: in bfloat16 the gradient of conv5b's weights is NaN on CPUs."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, clips: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            made: Tensor = self.layer(clips.float())
        return made


def _mirrored(name: str) -> str:
    """What an action is called when left and right are exchanged."""
    exchanged = {"slides left": "slides right", "slides right": "slides left"}
    return exchanged.get(name, name)


@torch.inference_mode()
def measure_action(folder: Path, seeds: range) -> dict[str, float]:
    """Shares of right actions, of all clips and of each action."""
    model, right = mmcam.load(folder).model, defaultdict(list)
    for seed in seeds:
        clip = shapes.clip(seed)
        guess = int(model(st.pictures(clip.pixels[None], torch.tensor([0]))).argmax())
        for name in ("actions", clip.action):
            right[name].append(shapes.ACTIONS[guess] == clip.action)
    return {name: round(float(np.mean(found)), 4) for name, found in right.items()}


COURSES = {
    "caption": (st.tell_scene, 120_000, st.Course(seed=0, steps=9000, batch=32, rate=2e-3)),
    "vqa": (st.tell_asked, 100_000, st.Course(seed=0, steps=5000, batch=32, rate=1.5e-3)),
    "action": (st.tell_clip, 40_000, st.Course(seed=0, steps=1800, batch=32, rate=1e-3)),
}
"""What each model learns from, and how."""

THINGS, LESSON = 80_000, st.Course(seed=0, steps=3000, batch=64, rate=3e-3)
"""What the CNN of captions learns first, of so many things."""

READING = st.Course(seed=1, steps=2500, batch=64, rate=1e-3)
"""How the answerer goes on learning behind the map of its CNN."""

NEAR_COURSE = st.Course(seed=0, steps=1000, batch=32, rate=2e-3)
"""What the model of actions learns first, of what is near the one that acts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=COURSES)
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument(
        "--cnn", type=Path, default=packaged("captioner"), help="for vqa: a captioner to start from"
    )
    parser.add_argument("--cache", type=Path, default=Path("shapes-cache"), help="made scenes")
    parser.add_argument("--rows", type=int, help="how many scenes or clips to learn from")
    parser.add_argument("--steps", type=int, help="how many batches to learn from")
    parser.add_argument("--test", type=int, default=2000, help="how many test seeds to measure on")
    parser.add_argument("--workers", type=int, default=2, help="processes that make scenes")
    asked = parser.parse_args()
    tell, rows, course = COURSES[asked.model]
    if asked.steps:
        course = replace(course, steps=asked.steps)
    world = st.world(tell, "train", asked.rows or rows, asked.cache, asked.workers)
    if asked.model == "action":
        action(asked.out, course, world, NEAR_COURSE)
    elif asked.model == "vqa":
        vqa(asked.out, course, world, asking_cnn(asked.cnn), READING)
    else:
        things = st.world(st.tell_thing, "train", THINGS, asked.cache, asked.workers)
        caption(asked.out, course, world, lesson(LESSON, things))
    measure = {"caption": measure_caption, "vqa": measure_vqa, "action": measure_action}
    seeds = shapes.SPLITS["test"][: asked.test]
    print(json.dumps(measure[asked.model](asked.out, seeds), indent=1))


if __name__ == "__main__":
    main()
