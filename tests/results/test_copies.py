"""Copies and pickles of targets, explanations and results, also between processes."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mmcam
from mmcam.errors import InputError, ScoreError
from mmcam.explanations import Explanations
from mmcam.media import write_image
from mmcam.types import Target, WordNetLabel
from tests import colour_net
from tests.page import results

FUNCTIONS = ("score", "log_prob", "attention")


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def saved_by_torch(thing: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def read_back(thing: Explanations, folder: Path) -> Explanations:
    thing.save(folder)
    return mmcam.read(folder)


STORES = [pickled, saved_by_torch]
COPIES = [copy.copy, copy.deepcopy]


def check_equal(first: Explanations, second: Explanations) -> None:
    """Check that all facts, maps, heatmaps and drawings are equal."""
    assert (first.task, first.model, first.text) == (second.task, second.model, second.text)
    assert first.source.facts() == second.source.facts()
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a is not b
        assert torch.equal(a.cam, b.cam)
        assert repr(a) == repr(b)
        for field in fields(a):
            if field.name not in ("target", "cam", "source"):
                assert getattr(a, field.name) == getattr(b, field.name), field.name
        for field in fields(a.target):
            if field.name not in FUNCTIONS:
                assert getattr(a.target, field.name) == getattr(b.target, field.name), field.name
        assert b.source is second.source
        np.testing.assert_array_equal(np.asarray(a.overlay()), np.asarray(b.overlay()))


RESULTS: dict[str, Callable[[], Explanations]] = {
    "classes": results.classes,
    "clip": results.clip,
    "caption": results.caption,
    "answers": results.answers,
}


@pytest.mark.parametrize("task", RESULTS)
def test_results_survive_every_copy_and_store(task: str) -> None:
    maps = RESULTS[task]()
    for repeat in (*STORES, copy.deepcopy):
        check_equal(maps, repeat(maps))
    assert copy.copy(maps).items == maps.items


@pytest.mark.parametrize("task", RESULTS)
def test_a_single_explanation_is_complete_with_its_picture(task: str) -> None:
    for explanation in RESULTS[task]()[:2]:
        for repeat in (*STORES, *COPIES):
            again = repeat(explanation)
            assert torch.equal(again.cam, explanation.cam)
            assert again.peak() == explanation.peak()
            assert again.words == explanation.words
            np.testing.assert_array_equal(
                np.asarray(again.overlay()), np.asarray(explanation.overlay())
            )


@pytest.mark.parametrize("repeat", COPIES)
def test_copies_keep_the_functions_of_targets(repeat: Callable[[Any], Any]) -> None:
    target = Target.logit(1, "dog")
    logits = torch.randn(2, 3)
    again = repeat(target)
    assert again == target
    assert again is not target
    assert again.score(logits).tolist() == logits[:, 1].tolist()
    maps = results.classes()
    assert repeat(maps)[0].target.score(logits).tolist() == maps[0].target.score(logits).tolist()


@pytest.mark.parametrize("store", STORES)
def test_stored_targets_keep_their_facts_and_refuse_to_score(store: Callable[[Any], Any]) -> None:
    target = replace(
        Target.logit(1, WordNetLabel("crane", "n02012849")), position=4, attention=lambda out: out
    )
    again = store(target)
    assert (again.label, again.kind, again.index) == ("crane", "class", 1)
    assert (again.score_name, again.position) == ("logit", 4)
    assert again.label.wordnet_id == "n02012849"
    for function in FUNCTIONS:
        with pytest.raises(ScoreError, match=r"target 'crane' was pickled .*new target or task"):
            getattr(again, function)(torch.zeros(1, 3))
    with pytest.raises(ScoreError, match="'crane'"):
        again.negated().score(torch.zeros(1, 3))
    assert store(again) == again
    assert store(Target(label="own", score=lambda output: output)).log_prob is None


def test_a_stored_target_is_no_task_for_a_model() -> None:
    target = pickled(results.classes()[0].target)
    with pytest.raises(ScoreError, match="'red' was pickled or read from files"):
        mmcam.explain(colour_net.model(clips=False), results.pixels(), target)


def test_targets_read_from_a_folder_are_those_that_are_unpickled(tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", colour_net.scene({"red": (0.3, 0.4)}))
    maps = mmcam.explain(
        colour_net.model(clips=False), tmp_path / "photo.png", mmcam.Classes(top=3)
    )
    restored = read_back(maps, tmp_path / "out")
    for original, read in zip(maps, restored, strict=True):
        unpickled = replace(pickled(original.target), log_prob=None)  # files tell the probability
        assert read.target == unpickled
    check_equal(restored, pickled(restored))


class Holder:
    """A score that holds a model, as an adapter's methods do."""

    def __init__(self, size: int) -> None:
        self.weights = torch.zeros(size)

    def score(self, output: Tensor) -> Tensor:
        return output[:, 0]


def test_a_pickle_holds_no_model_and_no_other_map() -> None:
    maps = results.make_explanations(["dog"], results.pixels())
    batch = torch.rand(1000, 7, 7)
    (small,) = maps.items
    explanation = replace(
        small, target=replace(small.target, score=Holder(10**6).score), cam=batch[3]
    )
    assert explanation.saliency is not None  # what is derived is not stored either
    size = len(pickle.dumps(explanation))
    assert size < len(pickle.dumps(small)) + 1000
    assert torch.equal(pickled(explanation).cam, batch[3])


def test_a_deep_copy_does_not_copy_the_model_of_a_score() -> None:
    holder = Holder(3)
    target = Target(label="dog", score=holder.score)
    assert copy.deepcopy(target).score.__self__ is holder


def test_the_picture_is_stored_once() -> None:
    maps = results.twelve_words(results.pixels(400, 500))
    assert maps.source.facts()["width"] == 500
    assert len(pickle.dumps(maps)) < 1.2 * 400 * 500 * 3


def test_deep_copies_share_nothing_that_can_change() -> None:
    maps = results.classes()
    again = copy.deepcopy(maps)
    before = maps[0].cam.clone()
    again[0].cam.add_(1)
    assert torch.equal(maps[0].cam, before)
    again.model["name"] = "other"
    assert maps.model["name"] == "the colour network"


def test_maps_with_a_graph_are_stored_without_it() -> None:
    (explanation,) = results.make_explanations(["dog"], results.pixels())
    weight = torch.ones(7, 7, requires_grad=True)
    with_graph = replace(explanation, cam=explanation.cam * weight)
    for repeat in (*STORES, copy.deepcopy):
        again = repeat(with_graph)
        assert not again.cam.requires_grad
        assert torch.equal(again.cam, explanation.cam)
    assert copy.copy(with_graph).cam is with_graph.cam


def test_results_travel_to_a_new_process_and_back() -> None:
    maps = results.classes()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (again,) = pool.map(copy.copy, [maps])
    check_equal(maps, again)
    with pytest.raises(ScoreError, match="'red' was pickled"):
        again[0].target.score(torch.zeros(1, 3))


def test_maps_move_to_another_device_and_nothing_else_changes() -> None:
    maps = results.classes()
    moved = maps.to("meta")
    assert {explanation.cam.device.type for explanation in moved} == {"meta"}
    assert {explanation.cam.device.type for explanation in maps} == {"cpu"}
    assert moved.source is maps.source
    assert [e.target for e in moved] == [e.target for e in maps]
    alone = maps[0].to(torch.device("cpu"))
    assert torch.equal(alone.cam, maps[0].cam)
    assert alone.source is maps.source


@pytest.mark.parametrize("device", ["nowhere", "cuda:77"])
def test_a_device_that_cannot_be_used_is_an_error(device: str) -> None:
    with pytest.raises(InputError, match=f"device '{device}' cannot be used .*; try cpu"):
        results.classes().to(device)
