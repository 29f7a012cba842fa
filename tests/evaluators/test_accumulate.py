"""Means and shares over datasets, against scipy, and merged in every way."""

from __future__ import annotations

import importlib
import math
import pickle
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from mmcam.errors import EvaluationError, MissingExtra
from mmcam.evaluators import EVALUATORS, accumulate
from mmcam.evaluators.accumulate import Mean, Proportion, accumulator
from mmcam.evaluators.intervals import student_t

numbers = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


def plain(summary: dict[str, torch.Tensor]) -> dict[str, float]:
    return {key: float(value) for key, value in summary.items()}


def test_the_mean_by_hand() -> None:
    # 1, 2, 3, 6: mean 3, deviations -2 -1 0 3, variance 14 / 3, error sqrt(14 / 12).
    mean = Mean()
    mean.update([1, 2])
    mean.update(3)
    mean.update(torch.tensor([6.0]))
    found = plain(mean.compute())
    error = math.sqrt(14 / 12)
    assert found["mean"] == 3
    assert found["n"] == 4
    assert found["infinite"] == 0
    assert found["standard_error"] == pytest.approx(error)
    # Student's t with three degrees of freedom, from tables: 3.182.
    assert found["high"] - found["mean"] == pytest.approx(3.1824 * error, rel=1e-4)
    assert found["mean"] - found["low"] == pytest.approx(3.1824 * error, rel=1e-4)


@given(numbers, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_mean_is_scipys(values: list[float], confidence: float) -> None:
    mean = Mean(confidence=confidence)
    mean.update(values)
    found = plain(mean.compute())
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert found["standard_error"] == pytest.approx(scipy.stats.sem(values), abs=1e-9)
    assert found["low"] == pytest.approx(expected.low, rel=1e-6, abs=1e-6)
    assert found["high"] == pytest.approx(expected.high, rel=1e-6, abs=1e-6)


@given(numbers, numbers, numbers)
def test_parts_make_the_whole(first: list[float], second: list[float], third: list[float]) -> None:
    whole, merged = Mean(), Mean()
    parts = (first, second, third)
    whole.update([value for part in parts for value in part])
    for part in parts:
        other = Mean()
        other.update(part)
        merged.merge_state(other)
    for key, value in plain(whole.compute()).items():
        assert plain(merged.compute())[key] == pytest.approx(value, abs=1e-9)


def test_a_call_gives_the_batch_and_keeps_the_whole() -> None:
    mean = Mean()
    assert float(mean([1.0, 3.0])["mean"]) == 2
    assert float(mean([5.0, 7.0])["mean"]) == 6
    assert plain(mean.compute())["mean"] == 4
    assert plain(mean.compute())["n"] == 4


def test_small_deviations_of_large_numbers_are_kept() -> None:
    mean = Mean()
    for value in np.random.default_rng(0).normal(1e9, 1e-3, 500):
        mean.update(value)
    assert plain(mean.compute())["standard_error"] == pytest.approx(1e-3 / 500**0.5, rel=0.1)


def test_a_curve_has_a_mean_at_each_point() -> None:
    mean = Mean(length=2)
    mean.update([[1, 10], [3, 30]])
    mean.update([5, 50])
    found = mean.compute()
    assert found["mean"].tolist() == [3, 30]
    assert found["n"].tolist() == [3, 3]
    np.testing.assert_allclose(found["standard_error"], np.array([2, 20]) / math.sqrt(3))


def test_one_sample_has_an_unbounded_interval() -> None:
    mean = Mean()
    mean.update(4)
    assert plain(mean.compute()) == {
        "mean": 4,
        "standard_error": math.inf,
        "low": -math.inf,
        "high": math.inf,
        "n": 1,
        "infinite": 0,
    }


def test_infinite_numbers_are_counted_beside_the_mean() -> None:
    mean = Mean()
    mean.update([1, math.inf, 3])
    mean.update(math.inf)
    found = plain(mean.compute())
    assert (found["mean"], found["n"], found["infinite"]) == (2, 2, 2)
    only = Mean()
    only.update(math.inf)
    with pytest.raises(EvaluationError, match="1 infinite"):
        only.compute()


@given(st.integers(0, 30), st.integers(0, 30), st.sampled_from([0.9, 0.95]))
def test_the_interval_of_a_share_is_wilsons(hits: int, misses: int, confidence: float) -> None:
    if hits + misses == 0:
        return
    share = Proportion(confidence)
    share.update([True] * hits + [False] * misses)
    found = plain(share.compute())
    test = scipy.stats.binomtest(hits, hits + misses)
    expected = test.proportion_ci(confidence, method="wilson")
    assert found["mean"] == pytest.approx(hits / (hits + misses))
    assert found["low"] == pytest.approx(expected.low, abs=1e-9)
    assert found["high"] == pytest.approx(expected.high, abs=1e-9)
    assert found["n"] == hits + misses


def test_the_error_of_a_share() -> None:
    share = Proportion()
    share.update(np.array([True, False]))
    share.update(True)
    share.update(torch.tensor([0, 1]))
    found = plain(share.compute())
    assert found["mean"] == 0.6
    assert found["standard_error"] == pytest.approx(math.sqrt(0.6 * 0.4 / 5))


@pytest.mark.parametrize("metric", [Mean(), Proportion()])
def test_odd_numbers_are_errors_and_leave_the_rest(metric: Mean | Proportion) -> None:
    metric.reset()
    metric.update([1, 0])
    for values, words in ((math.nan, "NaN"), ([[1, 0]], "no rows"), ([1, math.nan], "NaN")):
        with pytest.raises(EvaluationError, match=words):
            metric.update(values)
    assert plain(metric.compute())["n"] == 2
    metric.update([])
    assert plain(metric.compute())["n"] == 2
    metric.reset()
    with pytest.warns(UserWarning, match="before"), pytest.raises(EvaluationError, match="first"):
        metric.compute()


def test_a_share_takes_truth_values_alone() -> None:
    for value in (2, -0.5, math.inf):
        with pytest.raises(EvaluationError, match="no truth values"):
            Proportion().update(value)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_share(confidence: float) -> None:
    for make in (lambda: Mean(confidence=confidence), lambda: Proportion(confidence)):
        with pytest.raises(EvaluationError, match="confidence"):
            make()


@given(st.sampled_from([1, 2, 3, 10, 99, 10**4, 10**7]), st.floats(0.5, 0.9999))
def test_students_t_is_scipys(freedom: int, share: float) -> None:
    expected = scipy.stats.t.ppf(share, freedom)
    assert student_t(share, freedom) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_metrics_travel_and_go_into_collections() -> None:
    metrics = MetricCollection({"drop": Mean(), "loss": Mean()})
    metrics.update([1.0, 2.0])
    found = pickle.loads(pickle.dumps(metrics)).compute()
    assert float(found["drop_mean"]) == float(found["loss_mean"]) == 1.5


@pytest.mark.parametrize("name", EVALUATORS)
def test_every_evaluator_has_its_accumulator(name: str) -> None:
    gives = EVALUATORS[name].gives
    if gives == "layers":
        with pytest.raises(EvaluationError, match="accumulate the similarities"):
            accumulator(name)
    else:
        assert type(accumulator(name)) is (Proportion if gives == "truth" else Mean)
    with pytest.raises(EvaluationError, match=f"nearest: {name}"):
        accumulator(name + "x")


def test_without_torchmetrics_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, accumulate.__name__)
    with pytest.raises(MissingExtra, match=r"pip install 'mmcam\[evaluate\]'"):
        importlib.import_module(accumulate.__name__)
