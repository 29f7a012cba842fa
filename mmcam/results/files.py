"""The files of a result: `explanation.json` and `maps.safetensors` (schema version 1).

Both are written atomically and can be read back without the model or the input.
"""

from __future__ import annotations

import itertools
import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mmcam.errors import InputError
from mmcam.media.images import atomic_write
from mmcam.results.explanation import Explanation
from mmcam.types import Adapter, Placement, StoredScore, Target

FACTS, MAPS = "explanation.json", "maps.safetensors"
SCHEMA_VERSION = 1
LIBRARIES = ("mmcam", "torch", "torchvision", "transformers", "timm", "pytorchvideo", "numpy")


def target_facts(name: str, explanation: Explanation) -> dict[str, Any]:
    """The entry of one map in `explanation.json`.

    `place` says how the location of the map's cells on the model's input is known. "traced": the
    input was followed through the model, operation by operation. "even": the cells are spread
    evenly over the input, in the order that the model's family or the user gives.

    Raises:
        InputError: the map has NaN or infinite values.
    """
    peak = explanation.peak()
    probability = explanation.probability
    return {
        "id": name,
        "kind": explanation.target.kind,
        "label": explanation.label,
        "index": explanation.target.index,
        "position": explanation.target.position,
        "score": explanation.score,
        "score_name": explanation.target.score_name,
        "log_prob": math.log(probability) if probability else None,
        "probability": probability,
        "method": explanation.method,
        "layer": explanation.layer,
        "counterfactual": explanation.counterfactual,
        "grid": list(explanation.saliency.shape),
        "place": "traced" if explanation.placement.extent else "even",
        "map": name,
        "peak": {"x": peak.x, "y": peak.y, "frame": peak.frame},
        "empty": explanation.empty,
        "overlay": f"overlay-{name}.png",
        **(
            {"question_words": [{"text": word, "part": part} for word, part in explanation.words]}
            if explanation.words
            else {}
        ),
        **(
            {"clip": f"clip-{name}.mp4", "window_scores": list(explanation.window_scores)}
            if explanation.is_clip
            else {}
        ),
    }


def library_versions(*others: str) -> dict[str, str]:
    """The versions of Python, of the libraries that results depend on, and of `others`.

    Libraries that are not installed are omitted.
    """
    versions = {"python": platform.python_version()}
    for library in (*LIBRARIES, *others):
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions


def file_names(items: Sequence[Explanation]) -> list[str]:
    """A file name for each map: its label, with method and layer if there are several of them.

    The name of a word starts with its position, so that folders list words in reading order.
    """
    methods, layers = {e.method for e in items}, {e.layer for e in items}
    names: list[str] = []
    for explanation in items:
        position, kind = explanation.target.position, explanation.target.kind
        parts = [kind] if kind == "sentence" else [explanation.label]
        parts = parts if position is None else [f"{position:02d}", *parts]
        parts += ["against"] if explanation.counterfactual else []
        parts += [explanation.method] if len(methods) > 1 else []
        parts += [explanation.layer] if len(layers) > 1 else []
        slug = "-".join(re.sub(r"[^\w+]+", "-", part.lower()).strip("-") for part in parts)
        names.append(slug.encode()[:120].decode(errors="ignore") or "map")
    return unique_names(names)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, with a number appended to repeated ones; case is ignored."""
    unique: dict[str, str] = {}
    for name in names:
        candidates = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
        unique_name = next(c for c in candidates if c.casefold() not in unique)
        unique[unique_name.casefold()] = unique_name
    return list(unique.values())


def write_maps(path: Path, maps: Mapping[str, Explanation]) -> None:
    """Write the raw maps in float32, with the placement of each on the original as metadata.

    Raises:
        InputError: a map has NaN or infinite values.
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {
        name: e.cam.detach().float().cpu().contiguous().clone() for name, e in maps.items()
    }
    metadata = {
        name: json.dumps(map_geometry(e.placement, e.saliency.shape)) for name, e in maps.items()
    }
    with atomic_write(path) as temporary:
        # Not `save_file`, which makes the file readable by its owner only.
        temporary.write_bytes(save(tensors, metadata=metadata))


def map_geometry(placement: Placement, grid: Sequence[int]) -> dict[str, Any]:
    """The placement of a map on the original, as metadata of the file.

    `affine` (a, b, c, d, e, f) maps the centre of the cell (column, row) to the point
    x = a column + b row + c, y = d column + e row + f of the original. The centres of the
    original's pixels are at half-integers.
    """
    left, top, right, bottom = placement.box
    rows, columns = placement.along(-2), placement.along(-1)
    step_x = (columns[1] - columns[0]) * (right - left) / grid[-1]
    step_y = (rows[1] - rows[0]) * (bottom - top) / grid[-2]
    first_x = left + columns[0] * (right - left) + step_x / 2
    first_y = top + rows[0] * (bottom - top) + step_y / 2
    return {
        "size": list(placement.size),
        "box": [left, top, right, bottom],
        "extent": [list(interval) for interval in placement.extent],
        "affine": [step_x, 0.0, first_x, 0.0, step_y, first_y],
        "windows": [list(span) for span in placement.spans],
    }


def model_facts(model: Adapter) -> dict[str, Any]:
    """The entry of the model in `explanation.json`."""
    return {
        "name": model.name,
        "weights": model.weights.source if model.weights else None,
        "weights_sha256": model.weights.sha256 if model.weights else None,
        "default_layer": list(model.layers),
    }


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Write `explanation.json`.

    Raises:
        OutputError: the file cannot be written.
    """
    content = json.dumps(facts, indent=1, ensure_ascii=False)
    with atomic_write(path) as temporary:
        # A lone surrogate (from a file name that is not UTF-8) becomes a JSON escape sequence.
        temporary.write_bytes(f"{content}\n".encode(errors="backslashreplace"))


class Result(NamedTuple):
    """The content of a result folder: `explanation.json` and the maps."""

    facts: dict[str, Any]
    explanations: list[Explanation]


def read_result(folder: Path) -> Result:
    """Read a result folder; neither the model nor the input is needed.

    Raises:
        InputError: a file is missing or broken, a map has NaN or infinite values, or the schema
            version is not supported.
    """
    from safetensors import SafetensorError, safe_open

    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"its schema version is {facts['schema_version']}")
        with safe_open(folder / MAPS, "pt") as file:
            metadata = file.metadata() or {}
            explanations = [
                _explanation(
                    target, file.get_tensor(target["map"]), json.loads(metadata[target["map"]])
                )
                for target in facts["targets"]
            ]
    except SafetensorError as error:
        raise read_error(folder, ValueError(f"{MAPS}: {error}")) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise read_error(folder, error) from error
    return Result(facts, explanations)


def read_error(folder: Path, error: Exception) -> InputError:
    """The error for a result folder that cannot be read."""
    missing = f"the entry {error} is missing" if isinstance(error, KeyError) else ""
    return InputError(
        f"'{folder}' cannot be read ({missing or f'{type(error).__name__}: {error}'}); run the "
        "command that wrote it again"
    )


def _explanation(facts: Mapping[str, Any], cam: Any, geometry: Mapping[str, Any]) -> Explanation:
    if not cam.isfinite().all():
        raise ValueError(f"the map '{facts['map']}' has NaN or infinite values")
    height, width = geometry["size"]
    left, top, right, bottom = map(float, geometry["box"])
    return Explanation(
        target=Target(
            label=str(facts["label"]),
            score=StoredScore(str(facts["label"])),
            kind=str(facts["kind"]),
            score_name=facts.get("score_name"),
            index=facts.get("index"),
            position=facts["position"],
        ),
        cam=cam,
        score=facts["score"],
        probability=facts["probability"],
        method=str(facts["method"]),
        layer=str(facts["layer"]),
        placement=Placement(
            size=(height, width),
            box=(left, top, right, bottom),
            spans=_intervals(geometry["windows"]),
            extent=_intervals(geometry.get("extent", ())),
        ),
        counterfactual=bool(facts.get("counterfactual")),
        words=tuple((str(word["text"]), word["part"]) for word in facts.get("question_words", ())),
        window_scores=tuple(facts.get("window_scores", ())),
    )


def _intervals(pairs: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((float(first), float(last)) for first, last in pairs)
