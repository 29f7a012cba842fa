"""The same run on Ray Data: rows equal to the local engine's, also when a worker is killed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import mmcam
from mmcam.errors import MissingExtra, ModelError
from mmcam.evaluation import Study, evaluate
from tests.evaluation.coloured import Deadly, Squares, network, rows_of

STUDY = Study(
    metrics=("average-drop", "pointing"),
    task=mmcam.Classes(),
    methods=("gradcam", "gradcam++"),
    baselines=("random",),
    batch=4,
)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_rows_are_those_of_the_local_engine(workers: int, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    data = Squares(22, broken=(3,))
    local = evaluate(network(), data, STUDY, tmp_path / "local")
    ray = evaluate(network(), data, STUDY, tmp_path / "ray", engine="ray", workers=workers)
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "local")
    assert ray["items"] == local["items"]
    # Either engine goes on with what the other began.
    evaluate(network(), data, STUDY, tmp_path / "both", limit=9)
    evaluate(network(), data, STUDY, tmp_path / "both", resume=True, engine="ray", workers=workers)
    indices = [row["index"] for row in rows_of(tmp_path / "both")]
    assert indices == [row["index"] for row in rows_of(tmp_path / "local")]


@pytest.mark.slow
def test_a_killed_worker_loses_and_repeats_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    marker = tmp_path / "killed"
    evaluate(network(), Deadly(22, marker), STUDY, tmp_path / "ray", engine="ray", workers=2)
    assert marker.exists()
    evaluate(network(), Deadly(22, marker), STUDY, tmp_path / "local")
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "local")


@pytest.mark.slow
def test_workers_that_cannot_begin_are_one_error(tmp_path: Path) -> None:
    pytest.importorskip("ray")

    class Here(Squares):
        def __setstate__(self, state: object) -> None:
            raise RuntimeError("no such place")

    with pytest.raises(ModelError, match="Ray's workers failed"):
        evaluate(network(), Here(4), STUDY, tmp_path, engine="ray", workers=1)


def test_without_ray_the_install_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mmcam\[ray\]'"):
        evaluate(network(), Squares(2), STUDY, tmp_path, engine="ray")


def test_an_address_where_no_ray_is(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ModelError, match="Ray cannot be reached at '127"):
        evaluate(network(), Squares(2), STUDY, tmp_path, engine="ray", address="127.0.0.1:1")
