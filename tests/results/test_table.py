"""Labels, words, tables and the text of results."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import torch

import mmcam
from mmcam.errors import InputError, MissingExtra
from mmcam.explanations import Explanations
from tests import colour_net
from tests.page import results
from tests.results.test_files import HOSTILE


def test_labels_are_in_order_without_repeats() -> None:
    maps = results.classes(method=["gradcam", "gradcam++"])
    assert maps.labels == ("red", "blue", "green")
    assert [maps.select(label=label)[0].label for label in maps.labels] == list(maps.labels)
    assert results.caption("a dog run a dog").labels == ("a dog run a dog", "a", "dog", "run")


def test_words_are_read_in_the_order_of_the_sentence() -> None:
    maps = results.caption("a dog runs")
    assert [(word.position, word.label) for word in maps.words] == [
        (0, "a"),
        (1, "dog"),
        (2, "runs"),
    ]
    backwards = Explanations(maps.items[::-1], maps.task, maps.model, maps.source, maps.text)
    assert [word.label for word in backwards.words] == ["a", "dog", "runs"]
    assert all(word.target.kind == "word" for word in backwards.words)


def test_a_word_has_a_map_for_each_method() -> None:
    maps = results.caption("a dog runs", method=["gradcam", "layercam"])
    assert [(word.label, word.method) for word in maps.words[:3]] == [
        ("a", "gradcam"),
        ("a", "layercam"),
        ("dog", "gradcam"),
    ]


def test_other_tasks_have_no_words() -> None:
    assert results.classes().words == results.answers().words == ()
    assert results.classes()[0].position is None


def test_a_table_has_the_numbers_of_the_files(tmp_path: Path) -> None:
    maps = results.caption("a dog runs", method=["gradcam", "layercam"], counterfactual=False)
    maps.save(tmp_path)
    facts = json.loads((tmp_path / "explanation.json").read_text(encoding="utf-8"))
    for table in (maps.to_dataframe(), mmcam.read(tmp_path).to_dataframe()):
        assert len(table) == len(maps)
        for target, (_, row) in zip(facts["targets"], table.iterrows(), strict=True):
            flat = target | {f"peak_{axis}": value for axis, value in target["peak"].items()}
            flat |= {"grid": tuple(target["grid"]), "source": facts["input"]["path"]}
            for name, value in row.items():
                expected = flat[str(name)]
                assert pandas.isna(value) if expected is None else value == expected, name


def test_a_tables_columns_have_one_type_for_all_tasks() -> None:
    tables = [
        results.classes(method="gradcam").to_dataframe(),
        results.clip().to_dataframe(),
        results.caption().to_dataframe(),
        results.answers().to_dataframe(),
        results.make_explanations([], results.pixels()).to_dataframe(),
    ]
    numbers = ["index", "position", "score", "log_prob", "probability"]
    numbers += ["counterfactual", "peak_x", "peak_y", "peak_frame", "empty"]
    for table in tables:
        assert list(table.columns) == list(tables[0].columns)
        assert (table.dtypes[numbers] == tables[0].dtypes[numbers]).all()
    together = pandas.concat(tables[:-1], ignore_index=True)
    assert together.query("not empty and score > 0").label.iloc[0] == "red"
    assert together.groupby("kind").size()["word"] == 3
    assert together.peak_frame.notna().sum() == 2


def test_a_table_without_pandas_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"pandas; pip install 'mmcam\[notebook\]'"):
        results.classes().to_dataframe()


def test_a_table_of_a_map_without_a_maximum_is_an_error() -> None:
    maps = results.make_explanations(["dog"], results.pixels())
    broken = replace(maps, items=(replace(maps[0], cam=torch.full((2, 2), torch.nan)),))
    with pytest.raises(InputError, match=r"'dog' .* has NaN or infinite values"):
        broken.to_dataframe()
    assert repr(broken[0]).startswith("Explanation(label='dog', score=-1.5")


def test_the_text_of_an_explanation_is_one_line_of_its_facts() -> None:
    word = results.caption("a dog runs").select(label="dog")[0]
    assert repr(replace(word, score=1.23456, probability=0.25)) == (
        f"Explanation(label='dog', position=1, score=1.235, probability=0.25, method='gradcam', "
        f"layer={word.layer!r}, grid={tuple(word.cam.shape)})"
    )
    against = replace(word, counterfactual=True, probability=None)
    assert "counterfactual=True" in repr(against)
    assert "probability" not in repr(against)


def test_the_text_of_results_names_some_labels_the_model_and_the_source() -> None:
    assert repr(results.classes()) == (
        "Explanations(labels=['red', 'blue', 'green'], maps=9, model='the colour network', "
        "source='array')"
    )
    text = repr(results.twelve_words(results.pixels()))
    assert "'dog', 'and', … 6 more], maps=13" in text
    assert text.endswith("source='photo.jpg')")
    many = results.make_explanations([f"class {i}" for i in range(1000)], results.pixels())
    assert "'class 4', … 995 more], maps=1000" in repr(many)
    six = results.make_explanations([f"class {i}" for i in range(6)], results.pixels())
    assert "'class 5'], maps=6" in repr(six)


def test_texts_are_short_and_hold_no_numbers_of_maps_or_pixels() -> None:
    clip = results.clip()
    hostile = results.make_explanations(HOSTILE, results.pixels(), file="x" * 300)
    for maps in (results.classes(), clip, hostile):
        for thing in (maps, maps.source, *maps):
            text = repr(thing)
            assert len(text) < 400
            assert text.isprintable()
            assert "tensor" not in text
            assert "array(" not in text
            assert "function" not in text
    assert clip.source.facts()["frames"] == colour_net.FRAMES
