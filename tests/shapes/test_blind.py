"""Baselines that ignore the pixels fail, given only the texts or the positions of things.

Every baseline is fitted on training seeds and measured on test seeds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import pytest

from mmcam import shapes
from mmcam.shapes import ActionClip, Question, Scene
from tests.shapes.many import clips, scene_questions, scenes, unchecked

TRAIN, TEST = 1000, 500

SceneQuestion = tuple[Scene, Question]


def _right(answer: Callable[[Scene, Question], str]) -> dict[str, float]:
    """The share of right answers, of each kind and of all."""
    right = defaultdict(list)
    for scene, question in scene_questions(scenes("test", TEST)):
        for kind in (question.kind, "all"):
            right[kind].append(answer(scene, question) in question.answers)
    return {kind: float(np.mean(hits)) for kind, hits in right.items()}


def _fitted(x: np.ndarray, labels: np.ndarray, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """A linear model of the labels, by ridge regression on standardised features."""
    mean, spread = x.mean(0), x.std(0) + 1e-6

    def features(rows: np.ndarray) -> np.ndarray:
        return np.c_[(rows - mean) / spread, np.ones(len(rows))]

    known = features(x)
    grams = known.T @ known + 10 * np.eye(known.shape[1])
    weights = np.linalg.solve(grams, known.T @ np.eye(classes)[labels])
    return lambda rows: (features(rows) @ weights).argmax(1)


def test_answers_of_a_kind_are_equally_frequent() -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, question in scene_questions(scenes("train", TRAIN) + scenes("test", TEST)):
        counts[question.kind][question.answer] += 1
    names = {
        "color": shapes.COLOURS,
        "shape": shapes.SHAPES,
        "count": "0123",
        "presence": ("yes", "no"),
        "relation": shapes.SHAPES,
    }
    for kind, counter in counts.items():
        assert {*counter} == {*names[kind]}
        shares = np.array([*counter.values()]) / counter.total()
        assert shares.max() < 1.35 / len(counter)
        assert shares.min() > 0.65 / len(counter)
        assert counter.total() > 0.4 * (TRAIN + TEST)


def test_the_question_alone_does_not_give_its_answer() -> None:
    known: dict[str, Counter[str]] = defaultdict(Counter)
    for _, question in scene_questions(scenes("train", TRAIN)):
        for key in (question.text, question.kind):
            known[key][question.answer] += 1

    def answer(_: Scene, question: Question) -> str:
        return (known.get(question.text) or known[question.kind]).most_common(1)[0][0]

    right = _right(answer)
    for kind, most in {"color": 0.2, "shape": 0.22, "count": 0.38, "presence": 0.6,
                       "relation": 0.25, "all": 0.35}.items():  # fmt: skip
        assert right[kind] < most, kind


def test_the_question_and_the_places_of_things_do_not_give_the_answer() -> None:
    def features(scene: Scene, question: Question) -> np.ndarray:
        places = np.zeros((4, 4))
        for row, thing in enumerate(sorted(scene.objects, key=lambda thing: thing.centre)):
            places[row] = (1, *thing.centre, thing.mask.sum())
        kinds = np.array([question.kind == kind for kind in shapes.KINDS], float)
        words = [word in question.text.split() for word in shapes.QUESTION_WORDS]
        return np.concatenate([words, np.outer(kinds, places).ravel(), kinds])

    train = scene_questions(scenes("train", TRAIN))
    labels = np.array([shapes.ANSWERS.index(question.answer) for _, question in train])
    predict = _fitted(np.array([features(*item) for item in train]), labels, len(shapes.ANSWERS))
    right = _right(lambda *item: shapes.ANSWERS[int(predict(features(*item)[None])[0])])
    assert right["all"] < 0.4
    # The number of things bounds the number of things of one kind.
    assert right["count"] < 0.6


@pytest.mark.parametrize("before", [1, 3])
def test_the_words_before_do_not_give_the_next_one(before: int) -> None:
    with unchecked():
        train_captions, test_captions = (
            [shapes.caption(scene) for scene in scenes(split, count)]
            for split, count in (("train", TRAIN), ("test", TEST))
        )
    known: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for caption in train_captions:
        words = ["^"] * before + caption.text.split()
        for position in range(before, len(words)):
            for length in range(before + 1):
                context = (*words[position - length : position],)
                known[context][words[position]] += 1
    all_hits, visual_hits = [], []
    for caption in test_captions:
        words = ["^"] * before + caption.text.split()
        for word in caption.words:
            end = word.position + before
            contexts = [(*words[end - length : end],) for length in range(before, -1, -1)]
            guess = known[next(c for c in contexts if c in known)].most_common(1)[0][0]
            all_hits.append(guess == word.text)
            if word.mask is not None:
                visual_hits.append(guess == word.text)
    assert np.mean(all_hits) < 0.65
    assert np.mean(visual_hits) < 0.5


def _places(clip: ActionClip, index: int) -> np.ndarray:
    """The mean (y, x) of an object in each frame."""
    return np.array([np.argwhere(mask).mean(0) for mask in clip.objects[index].masks])


def _accuracy(features: Callable[[ActionClip], np.ndarray]) -> float:
    """The accuracy of a linear model that predicts the action from these features."""
    train, test = clips("train", 250), clips("test", 120)
    labels, truth = (
        np.array([shapes.ACTIONS.index(clip.action) for clip in part]) for part in (train, test)
    )
    predict = _fitted(np.array([features(clip) for clip in train]), labels, len(shapes.ACTIONS))
    return float((predict(np.array([features(clip) for clip in test])) == truth).mean())


def test_the_look_and_the_place_of_the_actor_do_not_give_the_action() -> None:
    def features(clip: ActionClip) -> np.ndarray:
        actor = clip.objects[clip.actor]
        looks = [actor.shape == shape for shape in shapes.SHAPES]
        looks += [colour in actor.colours for colour in shapes.COLOURS]
        place = _places(clip, clip.actor)[0]
        return np.array([*looks, *place, actor.masks[0].sum(), clip.actor], float)

    assert _accuracy(features) < 0.25


def test_the_paths_of_things_do_not_give_the_action() -> None:
    # If the actor is known, its path gives away the slides and the bounce, half of the actions.
    assert _accuracy(lambda clip: _places(clip, clip.actor).ravel()) < 0.75


def test_what_changes_most_is_not_the_actor() -> None:
    hits = []
    for clip in clips("test", 120):
        change = abs(np.diff(clip.pixels.astype(int), axis=0)).sum((0, 3))
        changes = [(change * mover.masks.any(0)).sum() for mover in clip.objects]
        hits.append(int(np.argmax(changes)) == clip.actor)
    assert np.mean(hits) < 0.65


def test_the_actor_is_no_nearer_to_the_middle_than_the_others() -> None:
    distances: dict[bool, list[float]] = {True: [], False: []}
    for clip in clips("train", 250):
        for index in range(len(clip.objects)):
            place = _places(clip, index)[0] - 31.5
            distances[index == clip.actor].append(float(np.hypot(*place)))
    assert np.mean(distances[True]) == pytest.approx(np.mean(distances[False]), rel=0.08)
