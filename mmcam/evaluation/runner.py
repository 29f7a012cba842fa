"""A run over a dataset: read, explain, measure, write; and go on where a killed run ended.

Items run in batches that are fixed by their numbers, and a shard holds whole batches. A run that
was killed and resumed therefore writes the rows of an unbroken one.
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
from mmcam.evaluation.measure import Read, Row, measure, read
from mmcam.evaluation.report import summarize
from mmcam.evaluation.shards import MANIFEST, Folder, chunks
from mmcam.evaluation.study import Study
from mmcam.results.files import versions
from mmcam.types import Adapter

SCHEMA_VERSION = 1
ROWS = 4096
"""A shard is written when it has this many rows, or when"""
SECONDS = 30.0
"""so much time has passed since the last one: the most work that a kill can cost."""

HOPELESS = 100
"""After so many failures with no success at all, a run stops."""

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
    """Judge methods by metrics over a dataset; the rows, a manifest and a summary go to a folder.

    Args:
        model: what `mmcam.load` or `mmcam.wrap` gives.
        data: a dataset, or the line of text that names one (`mmcam.evaluation.DATASETS`).
        study: the task, the methods and the metrics.
        out: the folder; it gets `rows-*.parquet`, `manifest.json` and `summary.json`.
        limit: only the first items, so many.
        resume: go on with the run in the folder; without one there, begin it.
        workers: threads that read and decode; with Ray, processes that hold the model.
        engine: "local", or "ray" for Ray Data (`mmcam[ray]`).
        address: of a running Ray cluster; Ray starts by itself on this machine when None.
        command: the command line that asked, for the record.
        progress: called after each batch.

    Returns:
        The summary, as `summary.json` holds it.

    Raises:
        MmcamError: settings that do not fit, a folder that holds another run, a full disk, or a
            run in which nothing but failures comes.
    """
    if isinstance(data, str):
        data = open_data(data, study.task.name)
    _check(limit, workers, engine)
    study.check_model(model)
    items = len(data) if limit is None else min(limit, len(data))
    folder, batch = Folder(out), study.batch or model.batch
    manifest = _manifest(model, data, study, batch, command)
    with folder.locked():
        _begin(folder, manifest, resume)
        done, failed = folder.done(len(data))
        count = sum(done[:items])
        left = chunks(done, range(items), batch)
        if engine == "ray":
            from mmcam.evaluation.ray_engine import stream

            rows = stream(model, data, study, left, workers, address)
        else:
            rows = _stream(model, data, study, left, workers, 1 + -(-workers // batch))
        writer = _Writer(folder, study)
        if progress:
            progress(count, items, failed)
        try:
            with closing(rows):
                for some in rows:
                    new = [row for row in some if not done[row["index"]]]  # Ray may try twice
                    for row in new:
                        count += not done[row["index"]]
                        done[row["index"]] = 1
                        failed += row["error"] is not None
                    writer.add(new)
                    if progress:
                        progress(count, items, failed)
                    if failed == count >= HOPELESS:
                        break
        finally:
            writer.flush()  # it holds whole batches, also when something went wrong
        summary = summarize(folder.path)
    if failed and failed >= count:
        worst = next(iter(summary["errors"]))
        raise EvaluationError(
            f"all {count} items failed, the most with: {worst}. Their rows are in {folder.path}"
        )
    return summary


def _check(limit: int | None, workers: int, engine: str) -> None:
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} leaves no item; it must be 1 or more")
    if workers < 1:
        raise InputError(f"workers={workers} read nothing; it must be 1 or more")
    if engine not in ENGINES:
        raise EvaluationError(f"there is no engine '{engine}'; nearest: {nearest(engine, ENGINES)}")


def _begin(folder: Folder, manifest: dict[str, Any], resume: bool) -> None:
    """The manifest, written by the first run of a folder and compared by the others.

    Raises:
        OutputError: the folder holds a run that is not to be resumed, or one of other settings.
    """
    known = folder.manifest()
    if known is None and folder.shards:
        raise OutputError(f"{folder.path} has rows and no {MANIFEST}; choose another folder")
    if known is None:
        folder.write_json(MANIFEST, manifest)
        return
    if not resume:
        raise OutputError(
            f"{folder.path} holds a run already; go on with it (--resume), or choose another folder"
        )
    before, now = known.get("settings", {}), manifest["settings"]
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        differ = "; ".join(f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in changed)
        raise OutputError(
            f"{folder.path} holds a run of other settings ({differ}); resume it with its own, or "
            "choose another folder"
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
    settings = json.loads(json.dumps(settings))  # as it will be read again
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
        "versions": versions("pyarrow", "ray"),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _weights_hash(model: Adapter) -> str:
    """The hash of the weights' file, or of the weights themselves where there is no file."""
    if model.weights is not None and model.weights.sha256 is not None:
        return model.weights.sha256
    digest = hashlib.sha256()
    for name, tensor in model.model.state_dict().items():
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            flat = tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _stream(
    model: Adapter,
    data: Dataset,
    study: Study,
    left: Iterable[Sequence[int]],
    workers: int,
    ahead: int,
) -> Generator[list[Row], None, None]:
    """The rows of each batch, while threads read the batches that come next, `ahead` of them."""
    with ThreadPoolExecutor(workers, thread_name_prefix="mmcam-read") as pool:
        waiting: deque[list[Future[Read]]] = deque()
        coming = iter(left)

        def submit() -> None:
            for some in coming:
                waiting.append([pool.submit(read, data, index, study, model) for index in some])
                return

        try:
            for _ in range(ahead):
                submit()
            while waiting:
                items = [future.result() for future in waiting.popleft()]
                submit()
                yield measure(model, study, items)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Writer:
    """Collects the rows of whole batches, and writes a shard when there are enough."""

    def __init__(self, folder: Folder, study: Study) -> None:
        self.folder, self.columns = folder, study.columns
        self.rows: list[Row] = []
        self.last = time.monotonic()

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of a batch."""
        self.rows += rows
        if len(self.rows) >= ROWS or time.monotonic() - self.last >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what there is."""
        if self.rows:
            self.folder.write_rows(self.rows, self.columns)
            self.rows = []
        self.last = time.monotonic()
