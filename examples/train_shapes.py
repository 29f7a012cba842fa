"""Train the packaged models from scratch on the scenes of `mmcam.shapes`.

    python examples/train_shapes.py caption --out data/captioner
    python examples/train_shapes.py vqa --out data/vqa --cnn data/captioner
    python examples/train_shapes.py action --out data/action

Each learns from training seeds and is measured on test seeds. Two runs on one machine with the same
seed and threads give the same weights. The answerer's CNN starts as the captioner's.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
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
from mmcam.adapters.networks.cnn import halves
from mmcam.adapters.networks.lstm_vqa import LstmVqa
from mmcam.adapters.networks.show_and_tell import ShowAndTell
from mmcam.adapters.networks.small_cnn import SmallCNN

SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
WORDS = (*SPECIAL, *shapes.VOCABULARY)
ASKING = ("<pad>", "<unk>", *shapes.QUESTION_WORDS)
MOST = len(shapes.KINDS)
"""How many questions a scene has at most."""

RECIPE = {"resize": 96, "crop": 96, "mean": [0.5] * 3, "std": [0.25] * 3}
CNN: dict[str, Any] = {}
FEATURES = 384
ACTION_SIDE = 32


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


def caption(out: Path, course: st.Course, world: st.World) -> None:
    """Show-and-Tell."""
    known = {word: token for token, word in enumerate(WORDS)}
    told = [[known[word] for word in one["caption"].split()] for one in world.told]
    tokens = torch.zeros(len(told), max(map(len, told)) + 1, dtype=torch.long)
    for row, said in enumerate(told):
        tokens[row, : len(said) + 1] = torch.tensor([*said, known["<end>"]])
    torch.manual_seed(course.seed)
    args = {"embedding": 256, "hidden": 256}
    trunk, head = halves(SmallCNN(**CNN), "trunk", "small")
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
        logits = model.out(model.tell(vector, said)[0])
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
        state = model.begin(model.cnn(pixels))
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


def vqa(out: Path, course: st.Course, world: st.World, cnn: Path | None) -> None:
    """LSTM and CNN for questions, all questions of a picture at once."""
    known = {word: token for token, word in enumerate(ASKING)}
    longest = max(len(text.split()) for one in world.told for _, text, _ in one["questions"])
    tokens = torch.zeros(len(world), MOST, longest, dtype=torch.long)
    lengths = torch.ones(len(world), MOST, dtype=torch.long)
    shares = torch.zeros(len(world), MOST, len(shapes.ANSWERS))
    for row, one in enumerate(world.told):
        for column, (_, text, answers) in enumerate(one["questions"]):
            words = [known[word] for word in text.split()]
            tokens[row, column, : len(words)] = torch.tensor(words)
            lengths[row, column] = len(words)
            for answer in answers:
                shares[row, column, shapes.ANSWERS.index(answer)] = 1 / len(answers)
    torch.manual_seed(course.seed)
    args = {"embedding": 128, "hidden": 128, "layers": 2, "common": 512, "answer_hidden": 256}
    args |= {"normalised": False}
    trunk, head = halves(SmallCNN(**CNN), "trunk", "small")
    model = LstmVqa(trunk, head, FEATURES, len(ASKING), len(shapes.ANSWERS), **args)
    if cnn is not None:
        trunk.load_state_dict(mmcam.load(cnn).model.get_submodule("cnn").state_dict())
    model = model.to(memory_format=torch.channels_last)

    def losses(rows: Tensor) -> tuple[Tensor, ...]:
        # The first questions of all pictures, then the second ones: blocks of the pictures.
        asked, right = tokens[rows].transpose(0, 1).flatten(0, 1), shares[rows].transpose(0, 1)
        logits = model(
            st.pictures(world.pixels, rows), asked, lengths[rows].transpose(0, 1).flatten()
        )
        log_probs = logits.float().log_softmax(1)
        return (-(log_probs * right.flatten(0, 1)).sum() / right.sum(),)

    st.learn(model, losses, len(world), course)
    manifest = {"family": "lstm_vqa", "cnn": {"family": "small", "args": CNN}, "args": args}
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


def action(out: Path, course: st.Course, world: st.World) -> None:
    """C3D, with batch norm while it learns, which is then folded into its weights."""
    labels = torch.tensor([shapes.ACTIONS.index(one["action"]) for one in world.told])
    mirrored = torch.tensor([shapes.ACTIONS.index(_mirrored(name)) for name in shapes.ACTIONS])
    torch.manual_seed(course.seed)
    channels, hidden, size = (8, 16, 32, 64, 64), 128, (16, ACTION_SIDE, ACTION_SIDE)
    args = {"channels": channels, "hidden": hidden, "size": size}
    model = C3D(len(shapes.ACTIONS), channels=channels, hidden=hidden, size=size)
    plain = {
        name: part
        for name, part in model.named_children()
        if name.startswith(("conv", "fc")) and name != "fc8"
    }
    for name, part in plain.items():
        setattr(model, name, torch.nn.Sequential(_Full(part) if "5" in name else part, _norm(part)))
    with torch.no_grad():
        model.fc8.weight.mul_(0.1)
    model.drop6.p = model.drop7.p = 0.1

    def losses(rows: Tensor) -> tuple[Tensor, ...]:
        clips, right = _resized(st.pictures(world.pixels, rows)), labels[rows]
        # Every other clip is seen in a mirror.
        clips[::2] = clips[::2].flip(-1)
        right[::2] = mirrored[right[::2]]
        return (F.cross_entropy(model(clips).float(), right, label_smoothing=0.05),)

    st.learn(model, losses, len(world), course)
    for name, part in plain.items():
        norm = model.get_submodule(name)[1]
        linear = isinstance(part, torch.nn.Linear)
        fuse = torch.nn.utils.fuse_linear_bn_eval if linear else torch.nn.utils.fuse_conv_bn_eval
        setattr(model, name, fuse(part, norm))
    recipe = {**RECIPE, "resize": ACTION_SIDE, "crop": ACTION_SIDE, "frames": 16}
    manifest = {"family": "c3d", "args": {"classes": len(shapes.ACTIONS), **args}}
    # At this side the last maps have 2 x 2 cells a slice; those of conv3b have 8 x 8.
    manifest |= {"preprocess": recipe, "layer": "relu3b"}
    st.save_folder(out, model, manifest, labels=shapes.ACTIONS)


def _norm(layer: torch.nn.Module) -> torch.nn.Module:
    """The batch norm that stands behind a layer while it learns."""
    if isinstance(layer, torch.nn.Linear):
        return torch.nn.BatchNorm1d(layer.out_features)
    return torch.nn.BatchNorm3d(layer.out_channels)


def _resized(clips: Tensor) -> Tensor:
    """Clips at the side at which the model sees them."""
    frames = clips.transpose(1, 2).flatten(0, 1)
    side = (ACTION_SIDE, ACTION_SIDE)
    frames = F.interpolate(frames, size=side, mode="bilinear", antialias=True)
    return frames.unflatten(0, (len(clips), -1)).transpose(1, 2)


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
        guess = int(model(_resized(st.pictures(clip.pixels[None], torch.tensor([0])))).argmax())
        for name in ("actions", clip.action):
            right[name].append(shapes.ACTIONS[guess] == clip.action)
    return {name: round(float(np.mean(found)), 4) for name, found in right.items()}


COURSES = {
    "caption": (st.tell_scene, 120_000, st.Course(seed=0, steps=6000, batch=32, rate=2e-3)),
    "vqa": (st.tell_scene, 120_000, st.Course(seed=0, steps=1000, batch=32, rate=1e-3)),
    "action": (st.tell_clip, 20_000, st.Course(seed=0, steps=1100, batch=32, rate=1e-3)),
}
"""What each model learns from, and how."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=COURSES)
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--cnn", type=Path, help="for vqa: a captioner's folder to start from")
    parser.add_argument("--cache", type=Path, default=Path("shapes-cache"), help="made scenes")
    parser.add_argument("--rows", type=int, help="how many scenes or clips to learn from")
    parser.add_argument("--steps", type=int, help="how many batches to learn from")
    parser.add_argument("--test", type=int, default=2000, help="how many test seeds to measure on")
    parser.add_argument("--workers", type=int, default=2, help="processes that make scenes")
    asked = parser.parse_args()
    tell, rows, course = COURSES[asked.model]
    if asked.steps:
        course = st.Course(**{**vars(course), "steps": asked.steps})
    world = st.world(tell, "train", asked.rows or rows, asked.cache, asked.workers)
    seeds = shapes.SPLITS["test"][: asked.test]
    if asked.model == "caption":
        caption(asked.out, course, world)
        print(json.dumps(measure_caption(asked.out, seeds), indent=1))
    elif asked.model == "vqa":
        vqa(asked.out, course, world, asked.cnn)
        print(json.dumps(measure_vqa(asked.out, seeds), indent=1))
    else:
        action(asked.out, course, world)
        print(json.dumps(measure_action(asked.out, seeds), indent=1))


if __name__ == "__main__":
    main()
