"""Train the packaged models from scratch on the scenes of `mmcam.shapes`.

    python examples/train_shapes.py caption --out data/captioner
    python examples/train_shapes.py vqa --out data/vqa
    python examples/train_shapes.py action --out data/action

Each model is trained on training seeds and measured on test seeds. Two runs on one machine with the
same seed and number of threads give the same weights. The captioner's CNN and the action model are
pretrained on crops of single objects; the VQA model's CNN starts from the captioner's.
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
CAPTION_TOKENS = (*SPECIAL, *shapes.VOCABULARY)
QUESTION_TOKENS = ("<pad>", "<unk>", *shapes.QUESTION_WORDS)
RECIPE = {"resize": 96, "crop": 96, "mean": [0.5] * 3, "std": [0.25] * 3}
CNN: dict[str, Any] = {}
CAPTION_FEATURES = 384
VQA_CNN: dict[str, Any] = {"features": 640}
ACTION_SIDE = 64
ACTION_CROP = 40


SLOTS = 16
"""Slots of a caption: number, size, texture, two colours, shape and relation of two things, and
two slots of the background."""


def slots_of(text: str) -> list[str]:
    """The words of a caption by grammatical slot, with padding in empty slots."""
    *subject, _, _, tone, pattern, _ = text.split()
    slots, start = ["<pad>"] * (SLOTS - 2) + [tone, pattern], 0
    for word in subject:
        if word in _SLOT:
            slot = start + _SLOT[word]
            slot += word in shapes.COLOURS and slots[slot] != "<pad>"
            slots[slot] = word
            start = 7 if _SLOT[word] >= 5 else start
    return slots


_SLOT = {
    **dict.fromkeys(["two", "three"], 0),
    **dict.fromkeys(["large", "small"], 1),
    **dict.fromkeys(["striped", "dotted", "checked"], 2),
    **dict.fromkeys(shapes.COLOURS, 3),
    **dict.fromkeys([*shapes.SHAPES, *shapes.SHAPES.values(), "things"], 5),
    **dict.fromkeys(["left", "right", "above", "below", "among"], -1),
}
"""The slot of each word of a thing; a relation takes the last slot of the first thing."""


ATTRIBUTES = (
    tuple(shapes.SHAPES),
    ("large", "small"),
    ("plain", "striped", "dotted", "checked", "left", "top"),
    tuple(shapes.COLOURS),
    tuple(shapes.COLOURS),
)
"""The attributes of a thing: shape, size, texture or side of the first colour, both colours."""

THING_CROP = 48


def pretrain_cnn(config: st.TrainingConfig, things: st.Dataset) -> SmallCNN:
    """Pretrain a CNN to classify the attributes of a single thing.

    The papers' captioners start from an ImageNet classifier in the same way: from captions alone,
    a CNN learns shapes and textures slowly.
    """
    looks = [labels["look"] for labels in things.labels]
    classes = torch.tensor(
        [
            [names.index(word) for names, word in zip(ATTRIBUTES, look, strict=True)]
            for look in looks
        ]
    )
    sizes = [len(names) for names in ATTRIBUTES]
    torch.manual_seed(config.seed)
    cnn = SmallCNN(**CNN)
    # The feature map of a crop is smaller, so only the layers that do not depend on its size are
    # shared.
    classifier = SmallCNN(sum(sizes), **{**CNN, "looks": 4, "cells": THING_CROP // 8})
    classifier.trunk, classifier.mix = cnn.trunk, cnn.mix
    classifier = classifier.to(memory_format=torch.channels_last)

    def losses(rows: Tensor) -> tuple[Tensor, ...]:
        left, top = torch.randint(st.WINDOW - THING_CROP + 1, (2,)).tolist()
        pixels = st.to_input(things.pixels, rows)[
            ..., top : top + THING_CROP, left : left + THING_CROP
        ]
        logits = classifier(pixels).float().split(sizes, 1)
        return tuple(F.cross_entropy(part, classes[rows, i]) for i, part in enumerate(logits))

    st.train(classifier, losses, len(things), config)
    return cnn


def train_captioner(
    out: Path, config: st.TrainingConfig, dataset: st.Dataset, cnn: SmallCNN
) -> None:
    """Train the captioner, Show-and-Tell, and write its model folder."""
    token_ids = {word: token for token, word in enumerate(CAPTION_TOKENS)}
    texts = [labels["caption"] for labels in dataset.labels]
    captions = [[token_ids[word] for word in text.split()] for text in texts]
    tokens = torch.zeros(len(captions), max(map(len, captions)) + 1, dtype=torch.long)
    for row, caption in enumerate(captions):
        tokens[row, : len(caption) + 1] = torch.tensor([*caption, token_ids["<end>"]])
    torch.manual_seed(config.seed)
    args = {"embedding": 256, "hidden": 256}
    trunk, head = split_cnn(cnn, "trunk", "small")
    sizes = (CAPTION_FEATURES, len(CAPTION_TOKENS))
    model = ShowAndTell(trunk, head, *sizes, start=token_ids["<start>"], **args)
    st.open_forget_gates(model.lstm)
    # An auxiliary head predicts the word of each grammatical slot from the image vector: through
    # the LSTM alone, the CNN learns slowly.
    model.parts = torch.nn.Linear(CAPTION_FEATURES, SLOTS * len(CAPTION_TOKENS))
    slots = torch.tensor([[token_ids[word] for word in slots_of(text)] for text in texts])
    model = model.to(memory_format=torch.channels_last)

    def losses(rows: Tensor) -> tuple[Tensor, ...]:
        targets = tokens[rows]
        targets = targets[:, : int((targets != 0).sum(1).max())]
        vector = pool(model.cnn(st.to_input(dataset.pixels, rows)))
        logits = model.out(model.teacher_force(vector, targets)[0])
        slot_logits = model.parts(vector).float().unflatten(1, (SLOTS, -1)).flatten(0, 1)
        slot_loss = F.cross_entropy(slot_logits, slots[rows].flatten())
        flat_logits = logits.flatten(0, 1).float()
        caption_loss = F.cross_entropy(flat_logits, targets.flatten(), ignore_index=0)
        return caption_loss, 2 * slot_loss

    pool, model.pool = model.pool, torch.nn.Identity()
    st.train(model, losses, len(dataset), config)
    model.pool = pool
    del model.parts
    manifest = {"family": "show_and_tell", "cnn": {"family": "small", "args": CNN}, "args": args}
    manifest |= {"preprocess": RECIPE, "layer": "cnn"}
    st.save_folder(out, model, manifest, vocabulary=CAPTION_TOKENS)


@torch.inference_mode()
def measure_caption(folder: Path, seeds: range) -> dict[str, float]:
    """The accuracy of words, teacher-forced, and of whole captions by greedy search."""
    adapter = mmcam.load(folder)
    model: Any = adapter.model
    hits: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(seeds), 100):
        scenes = [shapes.scene(seed) for seed in seeds[start : start + 100]]
        captions = [shapes.caption(scene) for scene in scenes]
        rows = torch.arange(len(captions))
        pixels = st.to_input(np.stack([scene.pixels for scene in scenes]), rows)
        texts = [[*(word.text for word in caption.words), "<end>"] for caption in captions]
        longest = max(map(len, texts))
        tokens = torch.zeros(len(captions), longest, dtype=torch.long)
        for row, words in enumerate(texts):
            tokens[row, : len(words)] = torch.tensor([CAPTION_TOKENS.index(word) for word in words])
        predictions = model(pixels, tokens).argmax(2)
        state = model.initial_state(model.cnn(pixels))
        last, steps = torch.full((len(captions),), model.start), []
        for _ in range(longest):
            logits, state = model.step(state, last)
            last = logits.argmax(1)
            steps.append(last)
        generated = torch.stack(steps, 1)
        for row, caption in enumerate(captions):
            for word in caption.words:
                hit = bool(predictions[row, word.position] == tokens[row, word.position])
                hits["words"].append(hit)
                if word.mask is not None:
                    hits["visual words"].append(hit)
                    hits[f"{word.kind} words"].append(hit)
            length = len(caption.words) + 1
            hits["captions"].append(bool((generated[row] == tokens[row])[:length].all()))
    return {name: round(float(np.mean(values)), 4) for name, values in hits.items()}


def make_vqa_cnn(captioner: Path) -> SmallCNN:
    """A captioner's CNN with a longer, untrained output vector.

    Questions ask for more than captions describe.
    """
    torch.manual_seed(0)
    cnn = SmallCNN(**VQA_CNN)
    trained = mmcam.load(captioner).model.get_submodule("cnn.net").state_dict()
    initial = cnn.state_dict()
    kept = {name: value for name, value in trained.items() if value.shape == initial[name].shape}
    cnn.load_state_dict({**initial, **kept})
    return cnn


NAMES = (*shapes.SHAPES, *shapes.COLOURS)
"""The names that the auxiliary head of the VQA model locates."""


def location_targets(dataset: st.Dataset) -> Tensor:
    """For each picture and name `[picture, name, 4]`: present, present once, and then x and y."""
    targets = torch.zeros(len(dataset), len(NAMES), 4)
    for row, labels in enumerate(dataset.labels):
        for column, name in enumerate(NAMES):
            centres = [(x, y) for names, x, y in labels["things"] if name in names]
            if centres:
                targets[row, column, 0] = 1
            if len(centres) == 1:
                targets[row, column, 1:] = torch.tensor([1.0, *centres[0]])
    return targets


def train_vqa(
    out: Path,
    config: st.TrainingConfig,
    dataset: st.Dataset,
    cnn: SmallCNN,
    head_config: st.TrainingConfig,
) -> None:
    """Train the VQA model, LSTM and CNN, on all questions of a picture at once.

    An auxiliary head locates things from the image vector: from answers alone, the CNN learns
    positions slowly. In a second phase only the layers after the CNN's feature map are trained,
    which takes half the time.
    """
    texts = sorted({text for labels in dataset.labels for text, _ in labels["questions"]})
    text_rows = {text: row for row, text in enumerate(texts)}
    lengths = torch.tensor([len(text.split()) for text in texts])
    tokens = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
    for row, text in enumerate(texts):
        words = [QUESTION_TOKENS.index(word) for word in text.split()]
        tokens[row, : len(words)] = torch.tensor(words)
    torch.manual_seed(config.seed)
    args = {"embedding": 128, "hidden": 128, "layers": 1, "common": 768, "answer_hidden": 384}
    args |= {"normalised": False}
    trunk, head = split_cnn(cnn, "trunk", "small")
    sizes = (VQA_CNN["features"], len(QUESTION_TOKENS), len(shapes.ANSWERS))
    model = LstmVqa(trunk, head, *sizes, **args)
    st.open_forget_gates(model.lstm)
    with torch.no_grad():  # so that questions that differ in one word start far enough apart
        model.lstm.weight_ih_l0.mul_(4)
        model.q_proj.weight.mul_(7)
    model.places = torch.nn.Linear(VQA_CNN["features"], 3 * len(NAMES))
    locations = location_targets(dataset)
    model = model.to(memory_format=torch.channels_last)

    def losses(rows: Tensor, encode: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        questions = [
            (row, text, answers)
            for row, index in enumerate(rows)
            for text, answers in dataset.labels[index]["questions"]
        ]
        targets = torch.zeros(len(questions), len(shapes.ANSWERS))
        for index, (_, _, answers) in enumerate(questions):
            for answer in answers:
                targets[index, shapes.ANSWERS.index(answer)] = 1 / len(answers)
        # A question about several pictures is encoded once.
        unique, inverse = torch.tensor([text_rows[text] for _, text, _ in questions]).unique(
            return_inverse=True
        )
        encoded = model.encode_question(tokens[unique], lengths[unique])[inverse]
        vectors = model.pool(encode(st.to_input(dataset.pixels, rows)))
        logits = model.classify(vectors[[row for row, _, _ in questions]], encoded)
        answer_loss = -(logits.float().log_softmax(1) * targets).sum() / len(questions)
        predicted = model.places(vectors).float().unflatten(1, (len(NAMES), 3))
        present, once, centres = locations[rows].split([1, 1, 2], 2)
        presence_loss = F.binary_cross_entropy_with_logits(predicted[..., :1], present)
        errors = F.smooth_l1_loss(predicted[..., 1:], centres, reduction="none", beta=0.1)
        return answer_loss, presence_loss, (errors * once).sum() / once.sum()

    st.train(model, partial(losses, encode=model.cnn), len(dataset), config)
    trunk, model.cnn = model.cnn, torch.nn.Identity()

    @torch.no_grad()
    def encode_frozen(pixels: Tensor) -> Tensor:
        maps: Tensor = trunk(pixels)
        return maps

    st.train(model, partial(losses, encode=encode_frozen), len(dataset), head_config)
    model.cnn = trunk
    del model.places
    manifest = {"family": "lstm_vqa", "cnn": {"family": "small", "args": VQA_CNN}, "args": args}
    manifest |= {"preprocess": RECIPE, "layer": "cnn"}
    st.save_folder(out, model, manifest, vocabulary=QUESTION_TOKENS, labels=shapes.ANSWERS)


@torch.inference_mode()
def measure_vqa(folder: Path, seeds: range) -> dict[str, float]:
    """The accuracy of answers, overall and for each kind of question."""
    model, hits = mmcam.load(folder).model, defaultdict(list)
    for seed in seeds:
        scene = shapes.scene(seed)
        questions = shapes.questions(scene)
        if not questions:
            continue
        words = [[QUESTION_TOKENS.index(word) for word in q.text.split()] for q in questions]
        tokens = torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, words)), True)
        lengths = torch.tensor([len(row) for row in words])
        logits = model(st.to_input(scene.pixels[None], torch.tensor([0])), tokens, lengths)
        for question, prediction in zip(questions, logits.argmax(1).tolist(), strict=True):
            for kind in ("answers", question.kind):
                hits[kind].append(shapes.ANSWERS[prediction] in question.answers)
    return {name: round(float(np.mean(values)), 4) for name, values in hits.items()}


def train_action(
    out: Path, config: st.TrainingConfig, dataset: st.Dataset, crop_config: st.TrainingConfig
) -> None:
    """Train the action model, C3D, with batch norm that is then folded into the weights.

    In a first phase the model is trained on crops around the actor: the convolutions learn the
    actions from a third of the pixels, before they have to locate them.
    """
    classes = torch.tensor([shapes.ACTIONS.index(labels["action"]) for labels in dataset.labels])
    mirrored = torch.tensor([shapes.ACTIONS.index(_mirror(name)) for name in shapes.ACTIONS])
    positions = [labels["place"] for labels in dataset.labels]
    torch.manual_seed(config.seed)
    convolutions: dict[str, torch.nn.Module] = {}
    for side, phase_config in ((ACTION_CROP, crop_config), (ACTION_SIDE, config)):
        size = (16, side, side)
        args = {"channels": (8, 16, 32, 64, 64), "hidden": 128, "size": size}
        model = C3D(len(shapes.ACTIONS), **args)
        layers = {
            name: layer
            for name, layer in model.named_children()
            if name.startswith(("conv", "fc")) and name != "fc8"
        }
        for name, layer in layers.items():
            wrapped = _FullPrecision(layer) if "5" in name else layer
            block = torch.nn.Sequential(wrapped, _make_norm(layer))
            setattr(model, name, convolutions.get(name, block))
        convolutions = {name: model.get_submodule(name) for name in layers if "conv" in name}
        with torch.no_grad():
            model.fc8.weight.mul_(0.1)
        model.drop6.p = model.drop7.p = 0.1
        model = model.to(memory_format=torch.channels_last_3d)

        def losses(rows: Tensor, model: C3D = model, side: int = side) -> tuple[Tensor, ...]:
            clips = st.to_input(dataset.pixels, rows)
            targets = classes[rows]
            if side < ACTION_SIDE:
                clips = torch.stack(
                    [
                        _crop_around(clip, *positions[row], side)
                        for clip, row in zip(clips, rows, strict=True)
                    ]
                )
            # Mirror every other clip.
            clips[::2] = clips[::2].flip(-1)
            targets[::2] = mirrored[targets[::2]]
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
            return (F.cross_entropy(model(clips).float(), targets, label_smoothing=0.05),)

        st.train(model, losses, len(dataset), phase_config)
    for name, layer in layers.items():
        trained, norm = model.get_submodule(name)
        trained = trained.layer if isinstance(trained, _FullPrecision) else trained
        linear = isinstance(layer, torch.nn.Linear)
        fuse = torch.nn.utils.fuse_linear_bn_eval if linear else torch.nn.utils.fuse_conv_bn_eval
        setattr(model, name, fuse(trained, norm))
    recipe = {**RECIPE, "resize": ACTION_SIDE, "crop": ACTION_SIDE, "frames": 16}
    manifest = {"family": "c3d", "args": {"classes": len(shapes.ACTIONS), **args}}
    # The last feature maps have only 4 x 4 cells per slice; those of conv4b have 8 x 8.
    manifest |= {"preprocess": recipe, "layer": "relu4b"}
    st.save_folder(out, model, manifest, labels=shapes.ACTIONS)


def _crop_around(clip: Tensor, x: int, y: int, side: int) -> Tensor:
    """The crop of a clip `[3 time h w]` around (x, y), moved inside the frame where necessary."""
    left, top = (min(max(centre - side // 2, 0), ACTION_SIDE - side) for centre in (x, y))
    return clip[..., top : top + side, left : left + side]


def _make_norm(layer: torch.nn.Module) -> torch.nn.Module:
    """The batch norm that follows a layer during training."""
    if isinstance(layer, torch.nn.Linear):
        return torch.nn.BatchNorm1d(layer.out_features)
    return torch.nn.BatchNorm3d(layer.out_channels)


class _FullPrecision(torch.nn.Module):
    """A layer in full precision: in bfloat16 the gradient of conv5b's weights is NaN on CPUs."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, clips: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            output: Tensor = self.layer(clips.float())
        return output


def _mirror(name: str) -> str:
    """The name of an action in a mirrored clip."""
    mirrored = {"slides left": "slides right", "slides right": "slides left"}
    return mirrored.get(name, name)


@torch.inference_mode()
def measure_action(folder: Path, seeds: range) -> dict[str, float]:
    """The accuracy of actions, overall and for each action."""
    model, hits = mmcam.load(folder).model, defaultdict(list)
    for seed in seeds:
        clip = shapes.clip(seed)
        prediction = int(model(st.to_input(clip.pixels[None], torch.tensor([0]))).argmax())
        for name in ("actions", clip.action):
            hits[name].append(shapes.ACTIONS[prediction] == clip.action)
    return {name: round(float(np.mean(values)), 4) for name, values in hits.items()}


TRAININGS = {
    "caption": (
        st.make_captioned_scene,
        120_000,
        st.TrainingConfig(seed=0, steps=9000, batch=32, learning_rate=2e-3),
    ),
    "vqa": (
        st.make_vqa_scene,
        100_000,
        st.TrainingConfig(seed=0, steps=5000, batch=32, learning_rate=1.5e-3),
    ),
    "action": (
        st.make_action_clip,
        40_000,
        st.TrainingConfig(seed=0, steps=1800, batch=32, learning_rate=1e-3),
    ),
}
"""For each model: the function that makes its samples, their number, and the settings."""

THINGS, PRETRAINING = 80_000, st.TrainingConfig(seed=0, steps=3000, batch=64, learning_rate=3e-3)
"""The number of things and the settings for pretraining the captioner's CNN."""

HEAD_TRAINING = st.TrainingConfig(seed=1, steps=2500, batch=64, learning_rate=1e-3)
"""The settings of the VQA model's second phase, in which its CNN is frozen."""

ACTION_CROP_TRAINING = st.TrainingConfig(seed=0, steps=1000, batch=32, learning_rate=2e-3)
"""The settings of the action model's first phase, on crops around the actor."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=TRAININGS)
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument(
        "--cnn", type=Path, default=packaged("captioner"), help="for vqa: a captioner to start from"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("shapes-cache"), help="the folder of cached samples"
    )
    parser.add_argument("--rows", type=int, help="number of training scenes or clips")
    parser.add_argument("--steps", type=int, help="number of training batches")
    parser.add_argument("--test", type=int, default=2000, help="number of test seeds")
    parser.add_argument("--workers", type=int, default=2, help="number of sample-making processes")
    args = parser.parse_args()
    make_sample, rows, config = TRAININGS[args.model]
    if args.steps:
        config = replace(config, steps=args.steps)
    dataset = st.load_dataset(make_sample, "train", args.rows or rows, args.cache, args.workers)
    if args.model == "action":
        train_action(args.out, config, dataset, ACTION_CROP_TRAINING)
    elif args.model == "vqa":
        train_vqa(args.out, config, dataset, make_vqa_cnn(args.cnn), HEAD_TRAINING)
    else:
        things = st.load_dataset(st.make_single_thing, "train", THINGS, args.cache, args.workers)
        train_captioner(args.out, config, dataset, pretrain_cnn(PRETRAINING, things))
    measure = {"caption": measure_caption, "vqa": measure_vqa, "action": measure_action}
    seeds = shapes.SPLITS["test"][: args.test]
    print(json.dumps(measure[args.model](args.out, seeds), indent=1))


if __name__ == "__main__":
    main()
