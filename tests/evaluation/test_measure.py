"""Rows of tiny models; every number is compared with a direct call of the evaluator."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import mmcam
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.datasets import Item, Region
from mmcam.datasets.items import WHOLE
from mmcam.errors import InputError
from mmcam.evaluation import Study
from mmcam.evaluation.measure import LoadedItem, Row, load_item, measure
from mmcam.evaluators import faithfulness, localization, pointing
from mmcam.evaluators.densecap import in_out_ratio
from mmcam.evaluators.human_attention import human_correlation
from mmcam.evaluators.maps import box_region
from mmcam.types import Adapter, Sample, WordNetLabel
from tests import colour_net
from tests.adapters.tiny_answerers import answerer
from tests.adapters.tiny_captioners import captioner
from tests.evaluation.coloured import HEIGHT, WIDTH, Squares, network, square


def rows_of(model: Adapter, study: Study, *items: Item) -> list[Row]:
    """The rows of items that are measured as one batch."""
    loaded = [
        LoadedItem(i, item.id, item, replace(item.read(model.window), text=study.text_of(item)))
        for i, item in enumerate(items)
    ]
    return measure(model, study, loaded)


def study(*metrics: str, **change: Any) -> Study:
    return Study(**{"metrics": metrics, "task": mmcam.Classes(), **change})


def test_every_number_of_pictures_is_the_evaluators_own() -> None:
    model, human_map = network(), np.random.default_rng(0).random((7, 9))
    metrics = ("pointing", "energy-inside", "densecap-ratio", "segmentation-iou", "loc")
    settings = study(*metrics, "human-attention", methods=("gradcam", "hirescam"))
    items = [replace(Squares(3)[n], human_maps=(human_map,)) for n in range(3)]
    rows = rows_of(model, settings, *items)
    assert [(r["index"], r["method"]) for r in rows] == [
        (n, method) for n in range(3) for method in settings.methods
    ]
    for row in rows:
        pixels, colour, box = square(row["index"])
        task = mmcam.Classes([colour])
        (explanation,) = mmcam.explain(model, pixels, task, method=row["method"])
        heatmap, region = explanation.heatmap(), box_region(box, (HEIGHT, WIDTH))
        assert row["label"] == colour
        assert row["layer"] == "trunk"
        assert row["score"] == pytest.approx(explanation.score, rel=1e-5)
        assert row["probability"] == pytest.approx(explanation.probability, rel=1e-5)
        expected = {
            "pointing": float(pointing.pointing_game(heatmap, region)),
            "energy-inside": pointing.energy_inside(heatmap, region),
            "densecap-ratio": in_out_ratio(heatmap, region),
            "segmentation-iou": localization.segmentation_iou(heatmap, region),
            "human-attention": human_correlation(heatmap, [human_map]),
            **{f"loc@{t:g}": localization.loc(heatmap, [box], t) for t in (0, 0.25, 0.5)},
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4)
        assert row["reasons"] is None
        assert row["error"] is None


def probability(model: Adapter, pixels: np.ndarray, label: str) -> float:
    """A class's probability, without any of the code under test."""
    logits = model.model(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
    return float(logits.detach().softmax(1)[0, list(colour_net.COLOURS).index(label)])


def test_faithfulness_scores_the_changed_picture() -> None:
    model = network()
    metrics = ("average-drop", "increase", "win", "deletion", "insertion", "quantile-curve")
    settings = study(*metrics, methods=("gradcam",), baselines=("centre",), steps=5, batch=2)
    (gradcam, centre) = rows_of(model, settings, Squares(1)[0])
    pixels, colour, _ = square(0)
    heatmap = mmcam.explain(model, pixels, mmcam.Classes([colour]))[0].heatmap()
    full = probability(model, pixels, colour)
    masked = probability(model, faithfulness.explanation_map(pixels, heatmap), colour)
    assert gradcam["average-drop"] == pytest.approx(faithfulness.drop(full, masked), abs=1e-3)
    assert gradcam["increase"] == float(masked > full)
    assert gradcam["win over centre"] == 1.0 - centre["win over gradcam"]
    assert "win over gradcam" not in gradcam

    def score(pictures: np.ndarray) -> np.ndarray:
        return np.array([probability(model, picture, colour) for picture in pictures])

    curve = faithfulness.deletion(pixels, heatmap, score, steps=5)
    assert gradcam["deletion"] == pytest.approx(curve.area, abs=1e-5)
    assert gradcam["deletion.curve"] == pytest.approx(curve.y.tolist(), abs=1e-5)
    assert len(gradcam["insertion.curve"]) == 6
    assert gradcam["insertion"] > centre["insertion"]
    assert len(gradcam["quantile-curve.curve"]) == 11


class Cranes(torch.nn.Module):
    """ImageNet's 1,000 classes; the two cranes have the highest scores, the bird's first."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torch.nn.Conv2d(3, 1000, 1)
        torch.nn.init.constant_(self.trunk.weight, 0.001)
        with torch.no_grad():
            self.trunk.weight[[134, 517]] = torch.tensor([2.0, 1.0])[:, None, None, None]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.trunk(pixels).mean((2, 3))


def test_classes_of_one_name_are_told_apart_by_their_wordnet_ids() -> None:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    names = [info.index_to_description(i).split(",")[0] for i in range(1000)]
    prepare = Preprocess(mean=(0,) * 3, std=(1,) * 3)
    model = mmcam.wrap(Cranes(), prepare, layer="trunk", labels=names)
    items = [
        Item(
            id=wordnet_id,
            source=np.full((8, 8, 3), 200, np.uint8),
            labels=(WordNetLabel("crane", wordnet_id),),
            regions={WordNetLabel("crane", wordnet_id): Region(boxes=((0, 0, 8, 8),))},
        )
        for wordnet_id in ("n02012849", "n03126707")
    ]
    bird, machine = rows_of(model, study("pointing", "label-randomization"), *items)
    assert (bird["error"], machine["error"]) == (None, None)
    assert (bird["label"], machine["label"]) == ("crane", "crane")
    assert bird["score"] == pytest.approx(2 * machine["score"], abs=0.1)
    assert (bird["pointing"], machine["pointing"]) == (1, 1)
    assert bird["reasons"] is None
    settings = study("localization-error", task=mmcam.Classes(), target="predicted")
    bird, machine = rows_of(model, settings, *items)
    assert (bird["localization-error"], machine["localization-error"]) == (0, 1)


def test_predictions_are_compared_with_the_label_and_its_boxes() -> None:
    model = network()
    settings = study(
        "localization-error",
        "pointing-or-rejecting",
        task=mmcam.Classes(top=2),
        target="predicted",
        threshold=0.0,
    )
    item = Squares(1)[0]
    first, second = rows_of(model, settings, item)
    assert first["label"] == item.labels[0]
    heatmaps = [e.heatmap() for e in mmcam.explain(model, item.source, mmcam.Classes(top=2))]
    labels = [first["label"], second["label"]]
    box = item.regions[str(item.labels[0])].boxes
    assert first["localization-error"] == float(
        localization.localization_error(
            list(zip(labels, heatmaps, strict=True)), item.labels[0], box
        )
    )
    assert "localization-error" not in second  # it is the item's, not the prediction's
    assert first["pointing-or-rejecting"] == 1.0
    assert second["pointing-or-rejecting"] == 0.0  # it is absent, and nothing is below 0


def test_labels_say_which_predictions_are_absent_if_the_region_has_no_label() -> None:
    model, item = network(), Squares(1)[0]
    (region,) = item.regions.values()
    unlabelled = replace(item, regions={WHOLE: region})

    def rows(item: Item, threshold: float) -> list[Row]:
        task = mmcam.Classes(top=2)
        metrics = ("pointing-or-rejecting",)
        settings = study(*metrics, task=task, target="predicted", threshold=threshold)
        return rows_of(model, settings, item)

    for threshold in (0.0, 1e9):  # no map rejects its label, then all do
        values = [row["pointing-or-rejecting"] for row in rows(item, threshold)]
        assert values == ([1, 0] if threshold == 0 else [0, 1])
        assert [row["pointing-or-rejecting"] for row in rows(unlabelled, threshold)] == values
    for row in rows(replace(unlabelled, labels=()), 0.0):
        reason = json.loads(row["reasons"])["pointing-or-rejecting"]
        assert f"whether '{row['label']}' is present is unknown" in reason
    (label,) = item.labels
    both = replace(item, labels=(label, rows(item, 0.0)[1]["label"]))
    second = rows(both, 0.0)[1]
    assert "no region of" in json.loads(second["reasons"])["pointing-or-rejecting"]


def test_baselines_know_nothing_of_the_score_and_are_the_same_again() -> None:
    settings = study(
        "energy-inside", "pointing", baselines=("uniform", "centre", "random", "activation")
    )
    rows = rows_of(network(), settings, Squares(2)[1])
    assert [row["method"] for row in rows] == list(settings.series)
    _, _, box = square(1)
    region = box_region(box, (HEIGHT, WIDTH))
    uniform = next(row for row in rows if row["method"] == "uniform")
    assert uniform["energy-inside"] == pytest.approx(region.mean(), rel=1e-5)
    assert uniform["layer"] == "none"
    again = rows_of(network(), settings, Squares(2)[1])
    renamed = rows_of(network(), settings, replace(Squares(2)[1], id="another"))
    energies = [
        next(r["energy-inside"] for r in run_rows if r["method"] == "random")
        for run_rows in (rows, again, renamed)
    ]
    assert energies[0] == energies[1] != energies[2]


def test_a_bad_item_is_one_row_and_the_others_go_on() -> None:
    model, settings = network(), study("pointing")
    data = Squares(4, broken=(1,))
    rows = measure(model, settings, [load_item(data, n, settings, model) for n in range(4)])
    assert [(row["index"], row["error"]) for row in rows] == [
        (0, None),
        (1, "InputError: picture 1 is broken; draw it again"),
        (2, None),
        (3, None),
    ]


def test_items_of_other_sizes_and_unknown_labels_do_not_spoil_a_batch() -> None:
    data = Squares(3)
    small = np.full((16, 32, 3), 128, np.uint8)
    unknown = replace(data[1], labels=("mauve",))
    rows = rows_of(network(), study("pointing"), data[0], unknown, replace(data[2], source=small))
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert "LabelError" in rows[1]["error"]
    alone = rows_of(network(), study("pointing"), data[0])
    assert rows[0]["score"] == alone[0]["score"]


def test_what_a_metric_lacks_is_said_and_the_others_have_numbers() -> None:
    item = Item(id="bare", source=square(0)[0], labels=("red",))
    (row,) = rows_of(network(), study("pointing", "human-attention", "average-drop"), item)
    reasons = json.loads(row["reasons"])
    assert list(reasons) == ["pointing", "human-attention"]
    assert "no regions" in reasons["pointing"]
    assert "average-drop" in row
    wrong = replace(Squares(1)[0], labels=("blue",))
    (row,) = rows_of(network(), study("pointing"), wrong)
    assert "no region of 'blue'" in json.loads(row["reasons"])["pointing"]


def test_a_region_for_whatever_is_asked() -> None:
    region = next(iter(Squares(1)[0].regions.values()))
    item = replace(Squares(1)[0], labels=("blue",), regions={WHOLE: region})
    (row,) = rows_of(network(), study("energy-inside"), item)
    assert 0 <= row["energy-inside"] < 1


def test_regions_of_labels_that_are_one_class_are_joined() -> None:
    item = Squares(1)[0]
    label, region = next(iter(item.regions.items()))
    elsewhere = Region(boxes=((0, 0, 2, 2),))
    regions = {label.upper(): region, label: elsewhere}
    joined = {label: region.joined(elsewhere)}
    rows = rows_of(
        network(),
        study("energy-inside"),
        replace(item, regions=regions),
        replace(item, regions=joined),
    )
    assert rows[0]["energy-inside"] == rows[1]["energy-inside"] > 0.1


def test_words_of_captions_are_judged_on_their_categories() -> None:
    model = captioner()
    noise = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    region = Region(boxes=((0, 0, 5, 4),))
    item = Item(id="x", source=noise, text="a dog runs", regions={"dog": region})
    settings = study("word-pointing", "energy-inside", task=mmcam.Caption())
    rows = rows_of(model, settings, item, replace(item, text="two dogs run"))
    words = [(r["kind"], r["label"], "word-pointing" in r, "energy-inside" in r) for r in rows]
    assert words == [
        ("sentence", "a dog runs", False, False),
        ("word", "a", False, False),
        ("word", "dog", True, True),
        ("word", "runs", False, False),
        ("sentence", "two dogs run", False, False),
        ("word", "two", False, False),
        ("word", "dogs", True, True),
        ("word", "run", False, False),
    ]
    maps = mmcam.explain(model, noise, mmcam.Caption("a dog runs"))
    mask = region.mask((8, 10))
    hit = pointing.word_pointing(maps["dog"].heatmap(), {"dog": mask}, "dog")
    assert rows[2]["word-pointing"] == float(hit)
    assert rows[2]["text"] == "a dog runs"
    assert [row["target"] for row in rows] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_sentence_is_judged_on_the_region_that_it_describes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    region = Region(boxes=((0, 0, 5, 4),))
    item = Item(id="x", source=noise, text="a dog runs", regions={WHOLE: region})
    (row,) = rows_of(captioner(), study("energy-inside", task=mmcam.Caption(words=[])), item)
    assert "energy-inside" in row
    assert row["reasons"] is None


@pytest.mark.parametrize("target", ["given", "predicted"])
def test_captions_are_scored_again_as_they_were_said(target: str) -> None:
    model = captioner()
    noise = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    item = Item(id="x", source=noise, text="two dogs run")
    settings = study("deletion", "average-drop", task=mmcam.Caption(), target=target, steps=2)
    rows = rows_of(model, settings, item)
    assert (rows[0]["text"] == "two dogs run") == (target == "given")
    for row in rows:  # nothing is deleted at first
        assert row["deletion.curve"][0] == pytest.approx(row["probability"], rel=1e-4)
        assert row["average-drop"] is not None


def test_answers_are_asked_with_each_items_question() -> None:
    model = answerer()
    noise = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    items = [
        Item(id="a", source=noise, text="what color is the dog?", labels=("red",)),
        Item(id="b", source=noise, text="how many dogs?", labels=("two", "no")),
        Item(id="c", source=noise, text="is the dog red?"),
    ]
    settings = study("deletion", task=mmcam.Answers(), steps=2)
    rows = rows_of(model, settings, *items)
    assert [(r["index"], r["label"]) for r in rows[:3]] == [(0, "red"), (1, "two"), (1, "no")]
    assert rows[3]["index"] == 2
    for row, item in zip(rows, [items[0], items[1], items[1], items[2]], strict=True):
        maps = mmcam.explain(model, noise, mmcam.Answers(item.text, [row["label"]]))
        assert row["score"] == pytest.approx(maps[0].score, rel=1e-4)
        assert row["deletion.curve"][0] == pytest.approx(row["probability"], rel=1e-4)


def test_clips_are_judged_on_the_window_that_the_model_sees() -> None:
    model = colour_net.model(clips=True)
    region = Region(boxes=((0, 0, 160, 120),))
    item = Item(id="clip", source=colour_net.clip(), labels=("red moves",), regions={WHOLE: region})
    settings = study("average-drop", "energy-inside", task=mmcam.Actions(), baselines=("random",))
    rows = rows_of(model, settings, item)
    assert [row["error"] for row in rows] == [None, None]
    assert rows[0]["kind"] == "action"
    frames = colour_net.clip()[8:24]  # the middle window of 16
    maps = mmcam.explain(model, frames, mmcam.Actions(["red moves"]))
    assert rows[0]["score"] == pytest.approx(maps[0].score, rel=1e-4)
    mask = region.mask((colour_net.HEIGHT, colour_net.WIDTH))
    energy = pointing.energy_inside(maps[0].heatmap(), mask)
    assert rows[0]["energy-inside"] == pytest.approx(energy, rel=1e-4)


def test_occlusion_is_compared_with_and_not_judged() -> None:
    rows = rows_of(network(), study("occlusion-correlation"), Squares(1)[0])
    assert [row["method"] for row in rows] == ["gradcam"]
    assert rows[0]["occlusion-correlation"] > 0.3
    settings = study("occlusion-correlation", methods=("occlusion",))
    (row,) = rows_of(network(), settings, Squares(1)[0])
    assert row["occlusion-correlation"] == pytest.approx(1.0)


def test_randomised_labels_and_models() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    settings = study("label-randomization", "model-randomization", baselines=("activation",))
    gradcam, activation = rows_of(model, settings, Squares(1)[0])
    assert activation["label-randomization"] == pytest.approx(1.0)
    assert gradcam["label-randomization"] < activation["label-randomization"]
    assert len(gradcam["model-randomization.curve"]) == 2  # the convolution and the linear layer
    assert gradcam["model-randomization"] == pytest.approx(
        np.mean(gradcam["model-randomization.curve"])
    )
    assert all(torch.equal(before[k], v) for k, v in model.model.state_dict().items())


def test_several_layers_and_guided_products_are_rows_too() -> None:
    settings = study(
        "average-drop", methods=("gradcam", "guided-gradcam"), layers=("trunk.0", "trunk")
    )
    rows = rows_of(network(), settings, Squares(1)[0])
    assert {(row["method"], row["layer"]) for row in rows} == {
        (method, layer) for method in settings.methods for layer in ("trunk.0", "trunk")
    }


def test_mixed_precision_changes_little_and_leaves_the_model_as_it_is() -> None:
    model = network()
    plain, mixed = (
        rows_of(model, study("average-drop", amp=amp), Squares(1)[0])[0] for amp in (False, True)
    )
    assert mixed["score"] == pytest.approx(plain["score"], rel=0.02)
    assert mixed["score"] != plain["score"]
    assert next(model.model.parameters()).dtype == torch.float32


def test_whatever_a_reader_raises_becomes_the_items_error() -> None:
    class Raising(Squares):
        def item(self, number: int) -> Item:
            raise RuntimeError("a decoder\nfell over")

    loaded = load_item(Raising(1), 0, study("pointing"), network())
    assert loaded == LoadedItem(0, "#0", error="RuntimeError: a decoder fell over")


def test_a_clip_for_a_model_of_pictures_is_an_error_of_its_item() -> None:
    clip = Sample(pixels=np.zeros((2, 8, 8, 3), np.uint8))
    (row,) = measure(network(), study("pointing"), [LoadedItem(0, "clip", Squares(1)[0], clip)])
    assert "is a clip and" in row["error"]
    assert InputError.__name__ in row["error"]
