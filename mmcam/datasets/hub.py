"""Any dataset of Hugging Face `datasets`: by its name, from a folder of files, or saved to disk."""

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
        name: a dataset's name on the hub, a folder of files, or a folder written by
            `save_to_disk`.
        split: such as `test`; the only one if None.
        config: the dataset's configuration.
        image: the column of pictures or paths; the first of `IMAGES` if None.
        label: the column of labels; the first of `LABELS`, if any, if None.
        text: the column of captions or questions; the first of `TEXTS`, if any, if None.
        id: the column of ids; row numbers are used if None.

    Raises:
        MissingExtra: `datasets` is not installed.
        InputError: the dataset cannot be loaded, or has no such column.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(
            "Hugging Face datasets need their library; pip install 'mmcam[datasets]'"
        ) from error
    folder = Path(name)
    saved = any((folder / file).is_file() for file in ("state.json", "dataset_dict.json"))
    try:
        table = (
            datasets.load_from_disk(name)
            if saved
            else datasets.load_dataset(name, config, split=split)
        )
    except Exception as error:  # datasets, the hub client and the system raise many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"hf:{name} cannot be loaded ({reason}); give the name of an accessible dataset, or a "
            "folder"
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
    requested: str | None,
    usual_names: tuple[str, ...],
    required_option: str | None = None,
) -> str | None:
    if requested is not None and requested not in columns:
        raise InputError(
            f"hf:{name} has no column '{requested}'; nearest: {nearest(requested, columns)}"
        )
    column = requested or next(
        (candidate for candidate in usual_names if candidate in columns), None
    )
    if required_option and column is None:
        raise InputError(
            f"hf:{name} has the columns {', '.join(columns)}; name the column of pictures "
            f"(hf:{name}?{required_option}=COLUMN)"
        )
    return column


class HubRows(Dataset):
    """Rows of a table of `datasets`, each read on access."""

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
        description = repr((len(table), sorted(map(str, table.features.items())), self.columns))
        self.fingerprint = hashlib.sha256(description.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.table)

    def item(self, number: int) -> Item:
        """The item of the row with this index."""
        try:
            row = self.table[number]
        except Exception as error:  # a broken picture may raise anything
            raise InputError(f"hf:{self.source}, row {number} cannot be read ({error})") from error
        name, text = self.columns["id"], self.columns["text"]
        value = row[text] if text else ""
        return Item(
            id=str(row[name]) if name else str(number),
            source=self._source(row[str(self.columns["image"])]),
            text=str(value[0] if isinstance(value, list) and value else value or ""),
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
