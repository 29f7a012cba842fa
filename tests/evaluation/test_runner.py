"""Runs that are killed, resumed, limited and refused: every item stands exactly once."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mmcam
from mmcam.errors import EvaluationError, InputError, OutputError
from mmcam.evaluation import Study, evaluate, runner
from mmcam.evaluation.shards import RunFolder, pending_batches
from tests.evaluation.coloured import Squares, network, rows_of

STUDY = Study(
    metrics=("average-drop", "pointing"),
    task=mmcam.Classes(),
    methods=("gradcam", "gradcam++"),
    batch=4,
)


def run(out: Path, count: int = 10, **options: Any) -> dict[str, Any]:
    return evaluate(network(), Squares(count, broken=(3,)), STUDY, out, **options)


def test_a_run_leaves_rows_a_manifest_and_a_summary(tmp_path: Path) -> None:
    progress: list[tuple[int, int, int]] = []
    summary = run(
        tmp_path, progress=lambda *counts: progress.append(counts), command=["mmcam", "evaluate"]
    )
    assert progress == [(0, 10, 0), (4, 10, 1), (8, 10, 1), (10, 10, 1)]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == [
        "manifest.json",
        "rows-00000.parquet",
        "summary.json",
    ]
    rows = rows_of(tmp_path)
    expected = [n for n in range(10) for _ in range(1 if n == 3 else 2)]
    assert [row["index"] for row in rows] == expected
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["items"], summary["failed"]) == (10, 1)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["command"] == ["mmcam", "evaluate"]
    assert manifest["settings"]["methods"] == ["gradcam", "gradcam++"]
    assert manifest["settings"]["data_fingerprint"] == "squares 10"
    assert len(manifest["settings"]["weights_sha256"]) == 64
    assert {"python", "torch", "pyarrow"} <= set(manifest["versions"])


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_do_not_depend_on_the_workers(workers: int, tmp_path: Path) -> None:
    run(tmp_path / "one", workers=2)
    run(tmp_path / "other", workers=workers)
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "other")


def test_a_limit_can_be_raised_later(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "parts", limit=6)
    assert {row["index"] for row in rows_of(tmp_path / "parts")} == set(range(6))
    run(tmp_path / "parts", limit=9, resume=True)
    run(tmp_path / "parts", resume=True)
    indices = [row["index"] for row in rows_of(tmp_path / "parts")]
    assert indices == [row["index"] for row in rows_of(tmp_path / "whole")]


def test_resuming_a_finished_run_reads_no_item(tmp_path: Path) -> None:
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("rows*")}
    data = Squares(10, broken=(3,))
    evaluate(network(), data, STUDY, tmp_path, resume=True)
    assert data.items_made == 0
    assert {path.name: path.read_bytes() for path in tmp_path.glob("rows*")} == before


def test_what_was_done_is_written_when_a_run_is_interrupted(tmp_path: Path) -> None:
    def stop(done: int, total: int, failed: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop)
    assert {row["index"] for row in rows_of(tmp_path)} == set(range(8))
    run(tmp_path, resume=True)
    assert {row["index"] for row in rows_of(tmp_path)} == set(range(10))


def test_a_folder_with_a_run_is_not_written_by_accident(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(OutputError, match="--resume"):
        run(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(OutputError, match="has rows but no manifest"):
        run(tmp_path, resume=True)


def test_other_settings_are_one_clear_error(tmp_path: Path) -> None:
    run(tmp_path)
    model, data = network(), Squares(10)
    with pytest.raises(OutputError, match="steps was 224 and is 9") as error:
        evaluate(model, data, replace(STUDY, steps=9), tmp_path, resume=True)
    assert "\n" not in str(error.value)
    with pytest.raises(OutputError, match="data_fingerprint was"):
        evaluate(model, Squares(11), STUDY, tmp_path, resume=True)
    with pytest.raises(OutputError, match="request was"):
        evaluate(model, data, replace(STUDY, task=mmcam.Classes(top=2)), tmp_path, resume=True)
    with torch.no_grad():
        model.model.head.bias.add_(1)
    with pytest.raises(OutputError, match="weights_sha256 was"):
        evaluate(model, data, STUDY, tmp_path, resume=True)
    evaluate(network(), data, STUDY, tmp_path, resume=True, workers=1)  # how it runs is free


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"limit": 0}, InputError, "limit=0"),
        ({"workers": 0}, InputError, "workers=0"),
        ({"engine": "spark"}, EvaluationError, "no engine 'spark'"),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, Any], kind: type[Exception], match: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=match):
        run(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked(), pytest.raises(OutputError, match="another run"):
        run(tmp_path)
    run(tmp_path)  # the lock is gone


def test_what_a_killed_run_left_behind_is_removed(tmp_path: Path) -> None:
    run(tmp_path, limit=4)
    whole = (tmp_path / "rows-00000.parquet").read_bytes()
    leftover = tmp_path / ".rows-00001.parquet.00112233.part"
    leftover.write_bytes(whole[: len(whole) // 2])
    run(tmp_path, resume=True)
    assert not leftover.exists()
    assert sorted({row["index"] for row in rows_of(tmp_path)}) == list(range(10))


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    run(tmp_path, limit=4)
    shard = tmp_path / "rows-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InputError, match=r"rows-00000.parquet is not a shard.*remove it"):
        run(tmp_path, resume=True)
    shard.unlink()
    run(tmp_path, resume=True)
    assert sorted({row["index"] for row in rows_of(tmp_path)}) == list(range(10))


def test_a_run_in_which_all_fails_ends_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FAILURE_LIMIT", 6)
    data = Squares(20, broken=tuple(range(20)))
    with pytest.raises(EvaluationError, match=r"all 8 items failed.*draw it again"):
        evaluate(network(), data, STUDY, tmp_path)
    assert data.items_made < 20


def test_batches_are_those_of_an_unbroken_run() -> None:
    done = bytearray([0, 0, 1, 0, 1, 1, 1, 1, 0])
    assert list(pending_batches(done, range(9), 4)) == [[0, 1, 3], [8]]
    assert list(pending_batches(bytearray(5), range(5), 2)) == [[0, 1], [2, 3], [4]]


def _in_a_child(out: Path, sender: Any) -> None:
    runner.SHARD_SECONDS = 0.0  # a shard after every batch
    data = Squares(60, broken=(3,))
    evaluate(network(), data, STUDY, out, resume=True, progress=lambda *counts: sender.send(counts))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_ten_kills_at_random_moments_lose_and_repeat_nothing(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = evaluate(network(), Squares(60, broken=(3,)), STUDY, whole)
    fork, draw = multiprocessing.get_context("fork"), random.Random(7)
    finished_counts = []
    for _ in range(10):
        receiver, sender = fork.Pipe(duplex=False)
        child = fork.Process(target=_in_a_child, args=(broken, sender))
        child.start()
        sender.close()
        for _ in range(draw.randrange(1, 4)):  # it begins, and does up to two batches
            receiver.recv()
        child.join(draw.uniform(0.0, 0.1))  # and then something: reads, explains, writes
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        finished_counts.append(len({row["index"] for row in rows_of(broken)}))
    assert finished_counts == sorted(finished_counts)
    assert len(set(finished_counts)) > 3
    assert finished_counts[-1] < 60
    resumed = evaluate(network(), Squares(60, broken=(3,)), STUDY, broken, resume=True)
    assert rows_of(broken) == rows_of(whole)
    for part in ("metrics", "pairs"):  # equal but for the order in which numbers were added up
        assert len(resumed[part]) == len(expected[part]) > 0
        for entry, expected_entry in zip(resumed[part], expected[part], strict=True):
            assert entry == pytest.approx(expected_entry)
    assert (resumed["items"], resumed["errors"]) == (expected["items"], expected["errors"])


def test_items_are_read_only_a_little_ahead(tmp_path: Path) -> None:
    data = Squares(60)
    most = 0

    def watch(done: int, total: int, failed: int) -> None:
        nonlocal most
        most = max(most, data.items_made - done)

    evaluate(network(), data, STUDY, tmp_path, progress=watch, workers=2)
    assert most <= 3 * 4  # what waits in memory does not grow with the data


def test_failures_beyond_the_limit_are_not_counted(tmp_path: Path) -> None:
    """A run resumed with fewer items counts the failures among these alone."""
    evaluate(network(), Squares(10, broken=(3, 5, 7)), STUDY, tmp_path)
    progress: list[tuple[int, int, int]] = []
    evaluate(
        network(),
        Squares(10, broken=(3, 5, 7)),
        STUDY,
        tmp_path,
        limit=2,
        resume=True,
        progress=lambda *counts: progress.append(counts),
    )
    assert progress == [(2, 2, 0)]
