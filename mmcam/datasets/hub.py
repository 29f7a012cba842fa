"""Any dataset of Hugging Face `datasets`: by its name, a folder of files, or saved to disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mmcam.datasets.items import Dataset, Item
from mmcam.errors import InputError, MissingExtra, nearest

IMAGES = ("image", "img", "picture", "video", "path", "file_name")
LABELS = ("label", "labels", "answer", "class", "fine_label")
TEXTS = ("text", "caption", "question", "sentence")


def read_hub(
    name: str,
    *,
    split: str | None = None,
    config: str | None = None,
    image: str | None = None,
    label: str | None = None,
    text: str | None = None,
    id: str | None = None,
) -> Dataset:
    """The rows of one split as items.

    Args:
        name: a dataset's name on the hub, a folder of files, or what `save_to_disk` wrote.
        split: such as `test`; the only one when None.
        config: the dataset's configuration.
        image: the column of pictures or paths; one that is called as usual when None.
        label: the column of labels likewise, if there is one.
        text: the column of captions or questions likewise, if there is one.
        id: the column of names; rows are named by their number when None.

    Raises:
        MissingExtra: `datasets` is not installed.
        InputError: it cannot be loaded, or has no such column.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(
            "Hugging Face datasets need their library; pip install 'mmcam[datasets]'"
        ) from error
    folder = Path(name)
    saved = any((folder / mark).is_file() for mark in ("state.json", "dataset_dict.json"))
    try:
        table = (
            datasets.load_from_disk(name)
            if saved
            else datasets.load_dataset(name, config, split=split)
        )
    except Exception as error:  # the library raises its own, the hub's and the system's kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"hf:{name} cannot be loaded ({reason}); give a dataset's name that can be reached, "
            "or a folder"
        ) from error
    if isinstance(table, dict):
        wanted = split or (next(iter(table)) if len(table) == 1 else "")
        if wanted not in table:
            have = ", ".join(table)
            raise InputError(f"hf:{name} has the splits {have}; name one (hf:{name}?split=...)")
        table = table[wanted]
    if not len(table):
        raise InputError(f"hf:{name} holds no item; choose another split")
    columns = table.column_names
    return HubRows(
        table,
        name,
        image=_column(name, columns, image, IMAGES, "image") or "",
        label=_column(name, columns, label, LABELS),
        text=_column(name, columns, text, TEXTS),
        id=_column(name, columns, id, ()),
    )


def _column(
    name: str,
    columns: list[str],
    asked: str | None,
    usual: tuple[str, ...],
    needed: str | None = None,
) -> str | None:
    if asked is not None and asked not in columns:
        raise InputError(f"hf:{name} has no column '{asked}'; nearest: {nearest(asked, columns)}")
    found = asked or next((one for one in usual if one in columns), None)
    if needed and found is None:
        raise InputError(
            f"hf:{name} has the columns {', '.join(columns)}; say which holds the pictures "
            f"(hf:{name}?{needed}=COLUMN)"
        )
    return found


class HubRows(Dataset):
    """Rows of a table of `datasets`, each read when it is asked for."""

    def __init__(
        self,
        table: Any,
        name: str,
        *,
        image: str,
        label: str | None,
        text: str | None,
        id: str | None,
    ) -> None:
        self.table, self.source = table, name
        self.columns = {"image": image, "label": label, "text": text, "id": id}
        said = repr((len(table), sorted(map(str, table.features.items())), self.columns))
        self.fingerprint = hashlib.sha256(said.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.table)

    def item(self, number: int) -> Item:
        """The row of this number."""
        try:
            row = self.table[number]
        except Exception as error:  # a broken picture raises what its decoder pleases
            raise InputError(f"hf:{self.source}, row {number} cannot be read ({error})") from error
        name, text = self.columns["id"], self.columns["text"]
        said = row[text] if text else ""
        return Item(
            id=str(row[name]) if name else str(number),
            source=self._source(row[str(self.columns["image"])]),
            text=str(said[0] if isinstance(said, list) and said else said or ""),
            labels=self._labels(row),
        )

    def _source(self, value: Any) -> Any:
        return value["path"] if isinstance(value, dict) and value.get("path") else value

    def _labels(self, row: Any) -> tuple[str | int, ...]:
        column = self.columns["label"]
        if column is None or row[column] is None:
            return ()
        values = row[column] if isinstance(row[column], list) else [row[column]]
        feature = self.table.features[column]
        feature = getattr(feature, "feature", feature)
        named = getattr(feature, "int2str", None)
        return tuple(named(v) if named and isinstance(v, int) else v for v in values)
