"""The files of a result: `explanation.json` and `maps.safetensors` (schema version 1).

Both are written whole or not at all, and read back without the model or the input.
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
from mmcam.media.images import replacing
from mmcam.results.explanation import Explanation
from mmcam.types import Adapter, Placement, Target

FACTS, MAPS = "explanation.json", "maps.safetensors"
SCHEMA_VERSION = 1
LIBRARIES = ("mmcam", "torch", "torchvision", "transformers", "timm", "pytorchvideo", "numpy")


def facts_of(name: str, explanation: Explanation) -> dict[str, Any]:
    """What `explanation.json` says of one map."""
    peak = explanation.peak()
    probability = explanation.probability
    return {
        "id": name,
        "kind": explanation.target.kind,
        "label": explanation.label,
        "position": explanation.target.position,
        "score": explanation.score,
        "log_prob": math.log(probability) if probability else None,
        "probability": probability,
        "method": explanation.method,
        "layer": explanation.layer,
        "counterfactual": explanation.counterfactual,
        "grid": list(explanation.saliency.shape),
        "map": name,
        "peak": {"x": peak.x, "y": peak.y, "frame": peak.frame},
        "empty": explanation.empty,
        "overlay": f"overlay-{name}.png",
        **(
            {"question_words": [{"text": text, "part": part} for text, part in explanation.words]}
            if explanation.words
            else {}
        ),
        **(
            {"clip": f"clip-{name}.mp4", "window_scores": list(explanation.window_scores)}
            if explanation.is_clip
            else {}
        ),
    }


def versions(*others: str) -> dict[str, str]:
    """The versions of Python and of what results depend on, with other packages if installed."""
    found = {"python": platform.python_version()}
    for library in (*LIBRARIES, *others):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def file_names(items: Sequence[Explanation]) -> list[str]:
    """A file name for each map: its label, and its method and layer where there are several.

    Words have their position in front, so that a folder lists them in reading order.
    """
    methods, layers = {e.method for e in items}, {e.layer for e in items}
    names: list[str] = []
    for item in items:
        position, kind = item.target.position, item.target.kind
        parts = [kind] if kind == "sentence" else [item.label]
        parts = parts if position is None else [f"{position:02d}", *parts]
        parts += ["against"] if item.counterfactual else []
        parts += [item.method] if len(methods) > 1 else []
        parts += [item.layer] if len(layers) > 1 else []
        slug = "-".join(re.sub(r"[^\w+]+", "-", part.lower()).strip("-") for part in parts)
        names.append(slug.encode()[:120].decode(errors="ignore") or "map")
    return distinct(names)


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that were there before, in whatever case."""
    found: dict[str, str] = {}
    for name in names:
        numbered = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
        new = next(one for one in numbered if one.casefold() not in found)
        found[new.casefold()] = new
    return list(found.values())


def write_maps(path: Path, maps: Mapping[str, Explanation]) -> None:
    """The raw maps in float32; the metadata says for each how it lies on the original.

    Raises:
        OutputError: they cannot be written.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {
        name: e.cam.detach().float().cpu().contiguous().clone() for name, e in maps.items()
    }
    metadata = {
        name: json.dumps(geometry_of(e.placement, e.saliency.shape)) for name, e in maps.items()
    }
    with replacing(path) as temporary:  # save_file would hide the file from all but its owner
        temporary.write_bytes(save(tensors, metadata=metadata))


def geometry_of(placement: Placement, grid: Sequence[int]) -> dict[str, Any]:
    """Where a map lies on the original.

    `affine` (a, b, c, d, e, f) takes the middle of the cell (column, row) to the point
    x = a column + b row + c, y = d column + e row + f of the original, whose pixels have their
    middles at halves.
    """
    left, top, right, bottom = placement.box
    across, down = (right - left) / grid[-1], (bottom - top) / grid[-2]
    return {
        "size": list(placement.size),
        "box": [left, top, right, bottom],
        "affine": [across, 0.0, left + across / 2, 0.0, down, top + down / 2],
        "windows": [list(span) for span in placement.spans],
    }


def model_facts(model: Adapter) -> dict[str, Any]:
    """What `explanation.json` says of the model."""
    return {
        "name": model.name,
        "weights": model.weights.source if model.weights else None,
        "weights_sha256": model.weights.sha256 if model.weights else None,
        "default_layer": list(model.layers),
    }


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """`explanation.json`.

    Raises:
        OutputError: it cannot be written.
    """
    content = json.dumps(facts, indent=1, ensure_ascii=False)
    with replacing(path) as temporary:
        # A lone surrogate, as in a file name that is no UTF-8, becomes JSON's own escape of it.
        temporary.write_bytes(f"{content}\n".encode(errors="backslashreplace"))


class Result(NamedTuple):
    """A result folder as it was written: the content of `explanation.json`, and its maps."""

    facts: dict[str, Any]
    explanations: list[Explanation]


def read_result(folder: Path) -> Result:
    """A result folder; neither the model nor the input is needed.

    Raises:
        InputError: a file is missing or broken, or of another schema version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"its schema version is {facts['schema_version']}")
        with safe_open(folder / MAPS, "pt") as file:
            metadata = file.metadata() or {}
            explanations = [
                _explanation(one, file.get_tensor(one["map"]), json.loads(metadata[one["map"]]))
                for one in facts["targets"]
            ]
    except SafetensorError as error:
        raise unreadable(folder, ValueError(f"{MAPS}: {error}")) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise unreadable(folder, error) from error
    return Result(facts, explanations)


def unreadable(folder: Path, error: Exception) -> InputError:
    """The error for a result folder that cannot be read."""
    return InputError(
        f"'{folder}' cannot be read ({type(error).__name__}: {error}); run the command that "
        "made it again"
    )


def _explanation(facts: Mapping[str, Any], cam: Any, geometry: Mapping[str, Any]) -> Explanation:
    height, width = geometry["size"]
    left, top, right, bottom = map(float, geometry["box"])
    return Explanation(
        target=Target(
            label=str(facts["label"]),
            score=_unknown,
            kind=str(facts["kind"]),
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
            spans=tuple((float(first), float(last)) for first, last in geometry["windows"]),
        ),
        counterfactual=bool(facts.get("counterfactual")),
        words=tuple((str(one["text"]), one["part"]) for one in facts.get("question_words", ())),
        window_scores=tuple(facts.get("window_scores", ())),
    )


def _unknown(output: Any) -> Any:
    raise ValueError("a map that was read from a file has no model to score")
