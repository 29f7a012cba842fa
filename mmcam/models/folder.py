"""Read a model folder: `mmcam.json` and the files that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmcam.adapters.base.recipe import Recipe
from mmcam.errors import ModelError
from mmcam.models.families import FAMILIES
from mmcam.models.labels import read_labels

MANIFEST: dict[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "the name of a model of the family"),
    "args": (dict, "a mapping from names to values"),
    "weights": ((str, dict), "the name of a file, or a mapping from parts to names of files"),
    "cnn": (dict, "the recipe of a family of classifiers"),
    "vocabulary": (str, "the name of a file"),
    "special": (dict, "a mapping from pad, start, end and unknown to words"),
    "max_question_tokens": (int, "a number of words"),
    "labels": (str, "the name of a file"),
    "preprocess": (dict, "a mapping from names to values"),
    "layer": ((str, list), "the name of a layer, or a list of names"),
}
"""Key of `mmcam.json` -> the type and a description of its value.

The keys "family" and "schema_version" are checked separately.
"""


def folder_recipe(folder: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in a model folder's `mmcam.json`, after a check of its files.

    `overrides` are fields of `Recipe` that replace those of the folder.

    Raises:
        ModelError: a missing or unreadable `mmcam.json`, a missing or wrong key, a missing file,
            unreadable labels, an unknown schema version, or a path outside the folder and its
            parent.
    """
    path = folder / "mmcam.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"folder '{folder}' has no mmcam.json; give a folder that has one"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read ({error}); fix the file") from error
    if isinstance(values, dict) and values.get("schema_version") != 1:
        raise ModelError(
            f"'{path}' has schema_version {values.get('schema_version')!r}; this mmcam reads 1"
        )
    return replace(_recipe(folder, values), **(overrides or {}))


def _recipe(folder: Path, values: Any) -> Recipe:
    """The recipe from the `values` of a model folder's `mmcam.json`, including its parts.

    Raises:
        ModelError: a missing or wrong key, a missing file, or several weights files for one model.
    """
    path = folder / "mmcam.json"
    if not isinstance(values, dict) or not isinstance(values.get("family"), str):
        raise ModelError(
            f"'{path}' or its cnn names no family; add \"family\": one of {', '.join(FAMILIES)}"
        )
    for key, (kind, description) in MANIFEST.items():
        if values.get(key) is not None and not isinstance(values[key], kind):
            raise ModelError(f"'{path}' has \"{key}\": {values[key]!r}; it must be {description}")
    weights = values.get("weights")
    files = weights if isinstance(weights, dict) else {"": weights}
    if not all(name is None or isinstance(name, str) for name in files.values()):
        raise ModelError(
            f"'{path}' has \"weights\": {weights!r}; it must be {MANIFEST['weights'][1]}"
        )
    cnn = values.get("cnn")
    if cnn is not None and "cnn" in files:
        cnn = {**cnn, "weights": files["cnn"]}
    own_files = [name for part, name in files.items() if part != "cnn" and name]
    if len(own_files) > 1:
        raise ModelError(
            f"'{path}' names {len(own_files)} weights files besides those of the cnn; merge them "
            "into one"
        )
    layers = values.get("layer") or ()
    return Recipe(
        family=values["family"],
        name=str(values.get("name", "")),
        args=values.get("args") or {},
        weights=resolve_file(folder, own_files[0]) if own_files else None,
        pretrained=False,
        labels=read_labels(resolve_file(folder, values["labels"])) if values.get("labels") else (),
        preprocess=values.get("preprocess"),
        layers=(layers,) if isinstance(layers, str) else tuple(layers),
        vocabulary=resolve_file(folder, values["vocabulary"]) if values.get("vocabulary") else None,
        special=values.get("special") or {},
        max_question_tokens=values.get("max_question_tokens"),
        parts={} if cnn is None else {"cnn": _recipe(folder, cnn)},
    )


def resolve_file(folder: Path, name: str) -> Path:
    """The path of a file named in `mmcam.json`, inside the folder or its parent.

    Raises:
        ModelError: the path is absolute or leads elsewhere, or there is no such file.
    """
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve().parent):
        raise ModelError(
            f"'{folder / 'mmcam.json'}' names '{name}', which is absolute or outside the folder; "
            "keep the file in the folder or beside it, and name it by a relative path"
        )
    if not path.is_file():
        raise ModelError(
            f"'{folder / 'mmcam.json'}' names '{name}', but there is no such file; check the path"
        )
    return path
