"""The same run on Ray Data: actors hold the model, batches of items stream through them.

Needs `mmcam[ray]`. The batches are those of the local engine, so the rows are the same; they come
in the order in which the actors are done. The driver writes all files. On a cluster the data must
be readable from every machine by the same paths.
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
from mmcam.evaluation.measure import Row, measure, read
from mmcam.evaluation.study import Study
from mmcam.types import Adapter

BLOCKS = 1024
"""How many pieces Ray gives out, at most; what an actor loses when it dies is one of them."""


def stream(
    model: Adapter,
    data: Dataset,
    study: Study,
    left: Iterable[Sequence[int]],
    workers: int,
    address: str | None,
) -> Generator[list[Row], None, None]:
    """The rows of each batch of items, in any order.

    Args:
        model: the adapter; each actor has a copy of its own.
        data: the dataset, likewise.
        study: what is asked.
        left: the batches, numbers of items.
        workers: how many actors; each has a GPU of its own where the model is on one.
        address: of a running cluster; Ray is started on this machine, and stopped, when None.

    Raises:
        MissingExtra: Ray Data is not installed.
        ModelError: the model cannot be sent to the actors, or Ray cannot run there.
    """
    ray = _ray()
    own = not ray.is_initialized()
    if own:
        _begin(ray, address)
    try:
        yield from _rows(ray, model, data, study, left, workers)
    finally:
        if own:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra("--engine ray needs Ray Data; pip install 'mmcam[ray]'") from error
    return ray


def _begin(ray: Any, address: str | None) -> None:
    try:
        _knock(address or "")
        own = {"include_dashboard": False} if address is None else {}
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # Ray raises its own kinds, the system's and plain RuntimeError
        where = "on this machine" if address is None else f"at '{address}'"
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"Ray cannot be reached {where} ({reason}); check --address, or use the local engine"
        ) from error


def _knock(address: str) -> None:
    """That somebody listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _rows(
    ray: Any,
    model: Adapter,
    data: Dataset,
    study: Study,
    left: Iterable[Sequence[int]],
    workers: int,
) -> Iterator[list[Row]]:
    batches = [list(some) for some in left]
    if not batches:
        return
    device = str(next(model.model.parameters(), torch.zeros(())).device)
    try:
        sent = ray.put(_pack(model, data, study))
    finally:
        model.model.to(device)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    blocks = min(len(batches), BLOCKS)
    table = ray.data.from_items([{"items": some} for some in batches], override_num_blocks=blocks)
    # An actor that dies is started again by Ray, which gives it the work that was lost.
    made = table.map_batches(
        Actor,
        fn_constructor_args=(sent, device),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, blocks)),
        num_cpus=1,
        num_gpus=1 if device.startswith("cuda") else 0,
    )
    try:
        for row in made.iter_rows():
            rows: list[Row] = pickle.loads(row["rows"])
            yield rows
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(
            f"Ray's workers gave up ({reason}); what is done is written: mend it and resume, or "
            "use the local engine"
        ) from error


def _pack(model: Adapter, data: Dataset, study: Study) -> bytes:
    """Model, data and study as bytes, the model on the CPU.

    Raises:
        ModelError: something in them cannot be sent to another process.
    """
    from ray import cloudpickle

    model.model.to("cpu")
    try:
        packed: bytes = cloudpickle.dumps((model, data, study))
    except Exception as error:  # pickling runs the objects' own code
        raise ModelError(
            f"{model.name} cannot be sent to Ray's workers ({error}); use the local engine"
        ) from error
    return packed


class Actor:
    """Holds the model, and turns batches of items into rows."""

    def __init__(self, sent: Any, device: str) -> None:
        import ray
        from ray import cloudpickle

        torch.set_num_threads(1)
        packed = ray.get(sent) if isinstance(sent, ray.ObjectRef) else sent
        self.model, self.data, self.study = cloudpickle.loads(packed)
        # A worker sees the one GPU that is its own.
        self.model.model.to("cuda" if device.startswith("cuda") else device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """The rows of each batch of items, pickled: they are of no one shape."""
        made = []
        for items in batch["items"]:
            some = [read(self.data, int(index), self.study, self.model) for index in items]
            made.append(pickle.dumps(measure(self.model, self.study, some)))
        return {"rows": made}
