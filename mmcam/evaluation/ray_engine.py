"""Evaluation on Ray Data: actors hold the model, and batches of items stream through them.

Needs `mmcam[ray]`. The batches are those of the local engine, so the rows are the same; they arrive
in the order in which the actors finish. The driver writes all files. On a cluster the data must be
readable on every machine under the same paths.
"""

from __future__ import annotations

import logging
import pickle
import socket
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import torch

from mmcam.datasets.items import Dataset
from mmcam.errors import MissingExtra, ModelError
from mmcam.evaluation.measure import Row, load_item, measure
from mmcam.evaluation.study import Study
from mmcam.types import Adapter

MAX_BLOCKS = 1024
"""The maximum number of Ray blocks; an actor that dies loses one of them."""


def stream(
    model: Adapter,
    data: Dataset,
    study: Study,
    batches: Iterable[Sequence[int]],
    workers: int,
    address: str | None,
) -> Generator[list[Row], None, None]:
    """The rows of each batch of items, in any order.

    Args:
        model: the adapter; each actor has its own copy.
        data: the dataset; each actor has its own copy.
        study: the settings of the run.
        batches: the indices of the items of each batch.
        workers: the number of actors, at most; each has its own GPU if the model is on a GPU.
        address: the address of a running cluster; if None, Ray is started on this machine and
            stopped at the end. Not used if this process is already connected to Ray.

    Raises:
        MissingExtra: Ray Data is not installed.
        ModelError: the model cannot be sent to the actors, Ray cannot be reached, or actors fail.
    """
    ray = _import_ray()
    started_here = not ray.is_initialized()
    if started_here:
        _start_ray(ray, address)
    try:
        yield from _stream_rows(ray, model, data, study, batches, workers)
    finally:
        if started_here:
            ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra("--engine ray needs Ray Data; pip install 'mmcam[ray]'") from error
    return ray


def _start_ray(ray: Any, address: str | None) -> None:
    try:
        _check_reachable(address or "")
        options = {"include_dashboard": False} if address is None else {}
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **options)
    except Exception as error:  # Ray raises its own errors, OSError and RuntimeError
        failure = "started on this machine" if address is None else f"reached at '{address}'"
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"Ray cannot be {failure} ({reason}); check --address, or use the local engine"
        ) from error


def _check_reachable(address: str) -> None:
    """Check that a server listens at `host:port`: Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _stream_rows(
    ray: Any,
    model: Adapter,
    data: Dataset,
    study: Study,
    batches: Iterable[Sequence[int]],
    workers: int,
) -> Iterator[list[Row]]:
    batch_list = [list(batch) for batch in batches]
    if not batch_list:
        return
    device = str(next(model.model.parameters(), torch.zeros(())).device)
    try:
        packed_ref = ray.put(_pack(model, data, study))
    finally:
        model.model.to(device)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    blocks = min(len(batch_list), MAX_BLOCKS)
    table = ray.data.from_items(
        [{"items": batch} for batch in batch_list], override_num_blocks=blocks
    )
    # Ray restarts an actor that dies and repeats the lost work.
    results = table.map_batches(
        Actor,
        fn_constructor_args=(packed_ref, device),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, blocks)),
        num_cpus=1,
        num_gpus=1 if device.startswith("cuda") else 0,
    )
    try:
        for row in results.iter_rows():
            rows: list[Row] = pickle.loads(row["rows"])
            yield rows
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(
            f"Ray's workers failed ({reason}); finished rows are written. Fix the cause and "
            "resume, or use the local engine"
        ) from error


def _pack(model: Adapter, data: Dataset, study: Study) -> bytes:
    """Model, data and study as bytes, the model on the CPU.

    Raises:
        ModelError: the model, the data or the study cannot be pickled.
    """
    from ray import cloudpickle

    model.model.to("cpu")
    try:
        packed: bytes = cloudpickle.dumps((model, data, study))
    except Exception as error:  # pickling runs arbitrary code of the objects
        raise ModelError(
            f"{model.name} cannot be sent to Ray's workers ({error}); use the local engine"
        ) from error
    return packed


class Actor:
    """A Ray worker that holds the model and turns batches of items into rows."""

    def __init__(self, packed_ref: Any, device: str) -> None:
        import ray
        from ray import cloudpickle

        torch.set_num_threads(1)
        packed = ray.get(packed_ref) if isinstance(packed_ref, ray.ObjectRef) else packed_ref
        self.model, self.data, self.study = cloudpickle.loads(packed)
        # Ray exposes to each worker only its own GPU.
        self.model.model.to("cuda" if device.startswith("cuda") else device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """The rows of each batch of items, pickled because their columns vary."""
        pickled = []
        for indices in batch["items"]:
            items = [load_item(self.data, int(index), self.study, self.model) for index in indices]
            pickled.append(pickle.dumps(measure(self.model, self.study, items)))
        return {"rows": pickled}
