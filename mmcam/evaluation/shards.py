"""The files of a run: Parquet shards, each written atomically, and the manifest.

Needs `mmcam[evaluate]`. All rows of an item are adjacent in one shard. An item is finished
if a shard has rows of it; nothing else records this.
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
from mmcam.media.images import atomic_write, write_error

if TYPE_CHECKING:
    import pyarrow

PATTERN = "rows-*.parquet"
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
LOCK = ".lock"
COLUMNS_KEY = b"mmcam.columns"
"""The metadata key of a shard under which its number columns are described."""

LEADING_COLUMNS = (
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
"""The columns before the numbers, named as in `explanation.json`."""

TRAILING_COLUMNS = (("reasons", "string"), ("seconds", "float64"), ("error", "string"))
"""The columns after the numbers: why a number is missing, by metric; the time that the row took;
and why an item failed."""


def import_pyarrow() -> Any:
    """Import pyarrow with its Parquet module.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            "rows are stored as Parquet, which needs pyarrow; pip install 'mmcam[evaluate]'"
        ) from error
    return pyarrow


def schema(columns: Sequence[Column]) -> pyarrow.Schema:
    """The columns of a shard; the metadata describes the number columns.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    pa = import_pyarrow()
    types = {"bool": pa.bool_()}
    leading = [(name, types.get(kind) or getattr(pa, kind)()) for name, kind in LEADING_COLUMNS]
    numbers = []
    for column in columns:
        numbers.append((column.name, pa.float64()))
        if column.gives == "curve":
            numbers.append((f"{column.name}.curve", pa.list_(pa.float64())))
    trailing = [(name, getattr(pa, kind)()) for name, kind in TRAILING_COLUMNS]
    description = json.dumps([vars(column) for column in columns])
    metadata = {COLUMNS_KEY: description.encode()}
    return pa.schema([*leading, *numbers, *trailing], metadata=metadata)


def columns_of(meta: Mapping[bytes, bytes] | None) -> tuple[Column, ...]:
    """The number columns that a shard's metadata describes.

    Raises:
        KeyError: the metadata describes none.
    """
    return tuple(Column(**values) for values in json.loads((meta or {})[COLUMNS_KEY]))


class RunFolder:
    """The folder of a run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def shards(self) -> list[Path]:
        """All shards, in the order in which they were written."""
        return sorted(self.path.glob(PATTERN))

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of the run; None if the folder holds none.

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
        """Create the folder if needed, and lock it; if the process dies, the system frees the lock.

        Temporary files of an earlier run that was killed are removed.

        Raises:
            OutputError: the folder cannot be written to, or another run is writing to it.
        """
        lock = FileLock(self.path / LOCK, blocking=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"{self.path} is being written by another run; wait for that run, or choose "
                "another folder"
            ) from error
        except (OSError, NotImplementedError) as error:  # some file systems have no locks
            raise write_error(self.path / LOCK, error) from error
        try:
            for leftover in self.path.glob(".*.part"):  # of a run that was killed
                leftover.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file atomically.

        Raises:
            OutputError: the file cannot be written.
        """
        text = json.dumps(content, indent=1, ensure_ascii=False)
        with atomic_write(self.path / name) as temporary, temporary.open("wb") as file:
            file.write(f"{text}\n".encode(errors="backslashreplace"))
            _flush_to_disk(file)

    def write_rows(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Path:
        """Write the next shard atomically.

        Raises:
            OutputError: the shard cannot be written.
            MissingExtra: pyarrow is not installed.
        """
        pa = import_pyarrow()
        last = int(self.shards[-1].stem.partition("-")[2]) if self.shards else -1
        path = self.path / f"rows-{last + 1:05d}.parquet"
        shard_schema = schema(columns)
        clean = [
            {name: _escape_surrogates(row.get(name)) for name in shard_schema.names} for row in rows
        ]
        table = pa.Table.from_pylist(clean, schema=shard_schema)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            pa.parquet.write_table(table, file)
            _flush_to_disk(file)
        with contextlib.suppress(OSError):  # not every file system can sync a folder
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return path

    def tables(self, names: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """The shards' rows, one shard at a time; only the columns `names`, or all if None.

        Raises:
            InputError: a shard cannot be read.
            MissingExtra: pyarrow is not installed.
        """
        pa = import_pyarrow()
        for path in self.shards:
            try:
                table = pa.parquet.read_table(
                    path, columns=None if names is None else list(names), use_threads=False
                )
            except (OSError, pa.ArrowException) as error:
                raise InputError(
                    f"{path} is not a shard of a run ({' '.join(str(error).split())}); remove it, "
                    "and --resume evaluates its items again"
                ) from error
            yield table

    def finished(self, items: int) -> tuple[bytearray, bytearray]:
        """For each item, 1 if it has rows, and 1 if it failed.

        Raises:
            InputError: a shard cannot be read, or has rows of an item that the data does not have.
            MissingExtra: pyarrow is not installed.
        """
        finished, failed = bytearray(items), bytearray(items)
        for table in self.tables(["index", "error"]):
            for index, error in zip(
                table["index"].to_pylist(), table["error"].to_pylist(), strict=True
            ):
                if not 0 <= index < items:
                    raise InputError(
                        f"{self.path} has rows of item {index}, but the data has {items} items; "
                        "choose another folder"
                    )
                finished[index] = 1
                failed[index] = error is not None
        return finished, failed


def _flush_to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _escape_surrogates(value: Any) -> Any:
    """Escape lone surrogates, as in a broken file name, because UTF-8 cannot encode them."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    return value


def pending_batches(finished: bytearray, items: Iterable[int], batch: int) -> Iterator[list[int]]:
    """The unfinished items, in the batches of an uninterrupted run."""
    pending: list[int] = []
    for index in items:
        if index % batch == 0 and pending:
            yield pending
            pending = []
        if not finished[index]:
            pending.append(index)
    if pending:
        yield pending
