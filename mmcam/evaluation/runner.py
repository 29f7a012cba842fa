"""A run over a dataset: load, explain, measure and write, or resume an interrupted run.

The items' indices determine the batches, and a shard holds whole batches. A run that was killed and
resumed therefore writes the same rows as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmcam.datasets.items import Dataset
from mmcam.datasets.registry import open_data
from mmcam.errors import EvaluationError, InputError, OutputError, nearest
from mmcam.evaluation.measure import LoadedItem, Row, load_item, measure
from mmcam.evaluation.report import summarize
from mmcam.evaluation.shards import MANIFEST, RunFolder, pending_batches
from mmcam.evaluation.study import Study
from mmcam.results.files import library_versions
from mmcam.types import Adapter

SCHEMA_VERSION = 1

SHARD_ROWS = 4096
"""A shard is written as soon as this many rows are buffered."""

SHARD_SECONDS = 30.0
"""A shard is also written once this time has passed since the last one: the work that a killed run
can lose."""

FAILURE_LIMIT = 100
"""A run stops after this many failed items if none succeeded."""

ENGINES = ("local", "ray")

Progress = Callable[[int, int, int], None]
"""Called with (items done, items in all, items that failed)."""


def evaluate(
    model: Adapter,
    data: Dataset | str,
    study: Study,
    out: str | Path,
    *,
    limit: int | None = None,
    resume: bool = False,
    workers: int = 2,
    engine: str = "local",
    address: str | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate methods by metrics over a dataset; write rows, a manifest and a summary to a folder.

    Args:
        model: the adapter that `mmcam.load` or `mmcam.wrap` returns.
        data: a dataset, or its specification (`mmcam.datasets.DATASETS`).
        study: the task, the methods and the metrics.
        out: the folder of `rows-*.parquet`, `manifest.json` and `summary.json`.
        limit: evaluate only the first `limit` items; all if None.
        resume: continue the run in the folder, or start one if there is none.
        workers: threads that load and decode; with Ray, processes that hold the model.
        engine: "local", or "ray" for Ray Data (`mmcam[ray]`).
        address: the address of a running Ray cluster; if None, Ray is started on this machine.
        command: the command line, recorded in the manifest.
        progress: called with (items done, all items, items failed) at the start and after each
            batch.

    Returns:
        The content of `summary.json`.

    Raises:
        MmcamError: settings that do not fit together, data that cannot be read, a folder with
            another run, a full disk, an optional package that is not installed, workers of Ray that
            fail, or a run in which all items fail.
    """
    if isinstance(data, str):
        data = open_data(data, study.task.name)
    _check(limit, workers, engine)
    study.check_model(model)
    items = len(data) if limit is None else min(limit, len(data))
    folder, batch = RunFolder(out), study.batch or model.batch
    manifest = _manifest(model, data, study, batch, command)
    with folder.locked():
        _write_or_check_manifest(folder, manifest, resume)
        finished, failures = folder.finished(len(data))
        done, failed = sum(finished[:items]), sum(failures[:items])
        batches = pending_batches(finished, range(items), batch)
        if engine == "ray":
            from mmcam.evaluation.ray_engine import stream

            rows = stream(model, data, study, batches, workers, address)
        else:
            rows = _stream_rows(model, data, study, batches, workers, 1 + -(-workers // batch))
        writer = _Writer(folder, study)
        if progress:
            progress(done, items, failed)
        try:
            with closing(rows):
                for batch_rows in rows:
                    # Ray may repeat a batch.
                    new_rows = [row for row in batch_rows if not finished[row["index"]]]
                    for row in new_rows:
                        done += not finished[row["index"]]
                        finished[row["index"]] = 1
                        failed += row["error"] is not None
                    writer.add(new_rows)
                    if progress:
                        progress(done, items, failed)
                    if failed == done >= FAILURE_LIMIT:
                        break
        finally:
            writer.flush()  # even after an exception, the buffer holds only whole batches
        summary = summarize(folder.path)
    if failed and failed >= done:
        most_common = next(iter(summary["errors"]))
        raise EvaluationError(
            f"all {done} items failed, most often with: {most_common}. Their rows are in "
            f"{folder.path}"
        )
    return summary


def _check(limit: int | None, workers: int, engine: str) -> None:
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} leaves no items; it must be 1 or more")
    if workers < 1:
        raise InputError(f"workers={workers} cannot load items; it must be 1 or more")
    if engine not in ENGINES:
        raise EvaluationError(f"there is no engine '{engine}'; nearest: {nearest(engine, ENGINES)}")


def _write_or_check_manifest(folder: RunFolder, manifest: dict[str, Any], resume: bool) -> None:
    """Write the manifest, or compare it with that of the run to resume.

    Raises:
        OutputError: the folder holds a run and `resume` is false, a run with other settings, or
            rows without a manifest.
    """
    previous = folder.manifest()
    if previous is None and folder.shards:
        raise OutputError(f"{folder.path} has rows but no {MANIFEST}; choose another folder")
    if previous is None:
        folder.write_json(MANIFEST, manifest)
        return
    if not resume:
        raise OutputError(
            f"{folder.path} already holds a run; continue it (--resume), or choose another folder"
        )
    before, after = previous.get("settings", {}), manifest["settings"]
    changed = [key for key in after if before.get(key) != after[key]]
    if changed:
        differences = "; ".join(
            f"{key} was {before.get(key)!r} and is {after[key]!r}" for key in changed
        )
        raise OutputError(
            f"{folder.path} holds a run with other settings ({differences}); resume it with the "
            "same settings, or choose another folder"
        )


def _manifest(
    model: Adapter, data: Dataset, study: Study, batch: int, command: Sequence[str]
) -> dict[str, Any]:
    settings = {
        "data": data.name or type(data).__name__,
        "data_fingerprint": data.fingerprint,
        "model": model.name,
        "weights_sha256": _weights_hash(model),
        **{key: value for key, value in asdict(study).items() if key != "task"},
        "task": study.task.name if hasattr(study.task, "name") else "targets",
        "request": repr(study.task),
        "batch": batch,
    }
    settings = json.loads(json.dumps(settings))  # as a resumed run will read them
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return {
        "schema_version": SCHEMA_VERSION,
        "command": list(command),
        "settings": settings,
        "settings_sha256": digest,
        "items": len(data),
        "weights": model.weights.source if model.weights else None,
        "default_layer": list(model.layers),
        "columns": [vars(column) for column in study.columns],
        "versions": library_versions("pyarrow", "ray"),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _weights_hash(model: Adapter) -> str:
    """The SHA-256 hash of the weights' file, or of the model's tensors if there is no file."""
    if model.weights is not None and model.weights.sha256 is not None:
        return model.weights.sha256
    digest = hashlib.sha256()
    for name, tensor in model.model.state_dict().items():
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            flat = tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _stream_rows(
    model: Adapter,
    data: Dataset,
    study: Study,
    batches: Iterable[Sequence[int]],
    workers: int,
    ahead: int,
) -> Generator[list[Row], None, None]:
    """Yield the rows of each batch while threads load the next `ahead` batches."""
    with ThreadPoolExecutor(workers, thread_name_prefix="mmcam-read") as pool:
        queue: deque[list[Future[LoadedItem]]] = deque()
        remaining = iter(batches)

        def submit() -> None:
            for batch in remaining:
                queue.append([pool.submit(load_item, data, index, study, model) for index in batch])
                return

        try:
            for _ in range(ahead):
                submit()
            while queue:
                items = [future.result() for future in queue.popleft()]
                submit()
                yield measure(model, study, items)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Writer:
    """Buffers the rows of whole batches, and writes a shard when there are enough."""

    def __init__(self, folder: RunFolder, study: Study) -> None:
        self.folder, self.columns = folder, study.columns
        self.rows: list[Row] = []
        self.last_flush = time.monotonic()

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of a batch."""
        self.rows += rows
        if len(self.rows) >= SHARD_ROWS or time.monotonic() - self.last_flush >= SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows, if any."""
        if self.rows:
            self.folder.write_rows(self.rows, self.columns)
            self.rows = []
        self.last_flush = time.monotonic()
