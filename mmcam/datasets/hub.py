"""Read any dataset of Hugging Face `datasets`, from the hub, a folder of files or a saved copy."""

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
        split: such as `test`; if None, the only split.
        config: the dataset's configuration.
        image: the column of pictures or paths; if None, the first of `IMAGES` present.
        label: the column of labels; if None, the first of `LABELS` present, if any.
        text: the column of captions or questions; if None, the first of `TEXTS` present, if any.
        id: the column of ids; if None, row numbers are used.

    Raises:
        MissingExtra: `datasets` is not installed.
        InputError: the dataset cannot be loaded, has no items, no such split or column, or several
            splits while `split` is None.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(
            "Hugging Face datasets need the package datasets; pip install 'mmcam[datasets]'"
        ) from error
    folder = Path(name)
    is_saved = any((folder / file).is_file() for file in ("state.json", "dataset_dict.json"))
    try:
        table = (
            datasets.load_from_disk(name)
            if is_saved
            else datasets.load_dataset(name, config, split=split)
        )
    except Exception as error:  # errors of datasets, hub client and system share no base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"hf:{name} cannot be loaded ({reason}); give the name of an accessible dataset, or a "
            "folder"
        ) from error
    if isinstance(table, dict):
        split_name = split or (next(iter(table)) if len(table) == 1 else "")
        if split_name not in table:
            splits = ", ".join(table)
            raise InputError(f"hf:{name} has the splits {splits}; name one (hf:{name}?split=...)")
        table = table[split_name]
    if not len(table):
        raise InputError(f"hf:{name} has no items; choose another split")
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
    """The requested column, else the first of `usual_names` present, else None.

    If `required_option` is given, a missing column is an error, which names this option.
    """
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
        # The library's own fingerprint covers the data: the revision, or the files and their times.
        data = table._fingerprint
        features = sorted(map(str, table.features.items()))
        description = repr((data, len(table), features, self.columns))
        self.fingerprint = hashlib.sha256(description.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.table)

    def item(self, number: int) -> Item:
        """The item of the row with this index; its picture is decoded.

        Raises:
            InputError: the row cannot be read, or its label is not one of the column's classes.
        """
        try:
            row = self.table[number]
        except Exception as error:  # a broken picture may raise any exception
            raise InputError(f"hf:{self.source}, row {number} cannot be read ({error})") from error
        id_column, text_column = self.columns["id"], self.columns["text"]
        text = row[text_column] if text_column else ""
        has_alternatives = isinstance(text, list) and len(text) > 0
        return Item(
            id=str(row[id_column]) if id_column else str(number),
            source=self._source(row[str(self.columns["image"])]),
            text=str(text[0] if has_alternatives else text or ""),
            labels=self._labels(row, number),
        )

    def _source(self, value: Any) -> Any:
        return value["path"] if isinstance(value, dict) and value.get("path") else value

    def _labels(self, row: Any, number: int) -> tuple[str | int, ...]:
        column = self.columns["label"]
        if column is None or row[column] is None:
            return ()
        values = row[column] if isinstance(row[column], list) else [row[column]]
        feature = self.table.features[column]
        feature = getattr(feature, "feature", feature)  # for lists, that of the items
        int2str = getattr(feature, "int2str", None)
        if int2str is None:
            return tuple(values)
        known = [value for value in values if value not in (None, -1)]  # -1: the label is hidden
        try:
            return tuple(int2str(v) if isinstance(v, int) else v for v in known)
        except ValueError as error:
            raise InputError(
                f"hf:{self.source}, row {number}: {row[column]} in the column '{column}' is not a "
                f"class ({error}); correct it, or name another column (?label=COLUMN)"
            ) from error
