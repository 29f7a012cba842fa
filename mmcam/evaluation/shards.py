"""The files of a run: Parquet shards written whole or not at all, and the manifest.

Needs `mmcam[evaluate]`. All rows of an item are in one shard, beside each other. What is done is
known from the shards alone.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mmcam.errors import InputError, MissingExtra, OutputError
from mmcam.evaluation.study import Column
from mmcam.media.images import replacing, unwritable

if TYPE_CHECKING:
    import pyarrow

PATTERN = "rows-*.parquet"
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
LOCK = ".lock"
META = b"mmcam.columns"
"""The key of a shard's metadata under which its columns of numbers are described."""

FACTS = (
    ("index", "int64"),
    ("item", "string"),
    ("group", "string"),
    ("text", "string"),
    ("target", "int32"),
    ("label", "string"),
    ("kind", "string"),
    ("position", "int32"),
    ("method", "string"),
    ("layer", "string"),
    ("score", "float64"),
    ("probability", "float64"),
    ("log_prob", "float64"),
    ("empty", "bool"),
)
"""The columns before the numbers, in the words of `explanation.json`."""

LAST = (("reasons", "string"), ("seconds", "float64"), ("error", "string"))
"""The columns behind them: why a number is missing, by metric, and why an item has none at all."""


def arrow() -> Any:
    """The library pyarrow, with its Parquet module.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            "rows are kept as Parquet, which needs pyarrow; pip install 'mmcam[evaluate]'"
        ) from error
    return pyarrow


def schema(columns: Sequence[Column]) -> pyarrow.Schema:
    """The columns of a shard; its metadata describes those of numbers."""
    pa = arrow()
    named = {"bool": pa.bool_()}
    facts = [(name, named.get(kind) or getattr(pa, kind)()) for name, kind in FACTS]
    numbers = []
    for column in columns:
        numbers.append((column.name, pa.float64()))
        if column.gives == "curve":
            numbers.append((f"{column.name}.curve", pa.list_(pa.float64())))
    last = [(name, getattr(pa, kind)()) for name, kind in LAST]
    described = json.dumps([vars(column) for column in columns])
    return pa.schema([*facts, *numbers, *last], metadata={META: described.encode()})


def columns_of(meta: Mapping[bytes, bytes] | None) -> tuple[Column, ...]:
    """The columns of numbers that a shard's metadata describes.

    Raises:
        KeyError: it describes none.
    """
    return tuple(Column(**values) for values in json.loads((meta or {})[META]))


class Folder:
    """The folder of a run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def shards(self) -> list[Path]:
        """All shards, in the order in which they were written."""
        return sorted(self.path.glob(PATTERN))

    def manifest(self) -> dict[str, Any] | None:
        """What the run's settings were; None where none is running or has run.

        Raises:
            InputError: the manifest cannot be read.
        """
        path = self.path / MANIFEST
        if not path.exists():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return content
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); choose another folder") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The folder, made if it is not there, for this process alone; the system frees it.

        Raises:
            OutputError: it cannot be written, or another run is writing to it.
        """
        lock = FileLock(self.path / LOCK, blocking=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"{self.path} is being written by another run; wait for it, or choose another "
                "folder"
            ) from error
        except (OSError, NotImplementedError) as error:  # some file systems have no locks
            raise unwritable(self.path / LOCK, error) from error
        try:
            for left in self.path.glob(".*.part"):  # of a run that was killed
                left.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps(content, indent=1, ensure_ascii=False)
        with replacing(self.path / name) as temporary, temporary.open("wb") as file:
            file.write(f"{text}\n".encode(errors="backslashreplace"))
            _to_disk(file)

    def write_rows(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Path:
        """Write the next shard, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        pa = arrow()
        last = int(self.shards[-1].stem.partition("-")[2]) if self.shards else -1
        path = self.path / f"rows-{last + 1:05d}.parquet"
        form = schema(columns)
        clean = [{name: _clean(row.get(name)) for name in form.names} for row in rows]
        table = pa.Table.from_pylist(clean, schema=form)
        with replacing(path) as temporary, temporary.open("wb") as file:
            pa.parquet.write_table(table, file)
            _to_disk(file)
        with contextlib.suppress(OSError):  # not every file system lets a folder be synced
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return path

    def tables(self, names: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """The shards' rows, one shard at a time.

        Raises:
            InputError: a shard cannot be read.
        """
        pa = arrow()
        for path in self.shards:
            try:
                table = pa.parquet.read_table(
                    path, columns=None if names is None else list(names), use_threads=False
                )
            except (OSError, pa.ArrowException) as error:
                raise InputError(
                    f"{path} is no shard of a run ({' '.join(str(error).split())}); remove it, and "
                    "its items are done again with --resume"
                ) from error
            yield table

    def done(self, items: int) -> tuple[bytearray, int]:
        """For each item whether its rows are there, and how many of them failed.

        Raises:
            InputError: a shard cannot be read, or holds items that the data does not have.
        """
        found, failed = bytearray(items), 0
        for table in self.tables(["index", "error"]):
            for index, error in zip(
                table["index"].to_pylist(), table["error"].to_pylist(), strict=True
            ):
                if not 0 <= index < items:
                    raise InputError(f"{self.path} has rows of item {index}, of {items}")
                found[index] = 1
                failed += error is not None
        return found, failed


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _clean(value: Any) -> Any:
    """Text that UTF-8 can hold: half a pair, as in a broken file name, becomes its escape."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    return value


def chunks(done: bytearray, items: Iterable[int], batch: int) -> Iterator[list[int]]:
    """The items that are left, in the batches in which an unbroken run has them."""
    some: list[int] = []
    for index in items:
        if index % batch == 0 and some:
            yield some
            some = []
        if not done[index]:
            some.append(index)
    if some:
        yield some
