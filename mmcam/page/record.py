"""Records: the data of one result in a page, as numbers, texts and quantised maps."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from mmcam.grids import frame_weights
from mmcam.render import as_colours, gradient_picture
from mmcam.render.inline import as_png
from mmcam.results.explanation import Explanation

LEVELS = 255
MAX_CELLS = 64
"""The maximum longer side of a clip's map, in cells; larger maps are reduced to it in a page."""

MAX_POINTS = 240
"""The maximum number of points of a curve over the frames of a clip."""

GRADIENT_SIDE = 1024


def record(
    facts: Mapping[str, Any],
    items: Sequence[Explanation],
    preview: Mapping[str, Any],
    folder: str = "",
) -> dict[str, Any]:
    """The record of one result.

    Args:
        facts: the content of `explanation.json`.
        items: the maps, in the order of the targets in `facts`.
        preview: the picture or the frames (`image_preview`, `clip_preview`).
        folder: the result folder relative to the page, "" or with a trailing slash.

    Raises:
        InputError: a map has NaN or infinite values.
    """
    source = facts["input"]
    text = facts.get("text") or {}
    content: dict[str, Any] = {
        "task": str(facts["task"]),
        "model": str(facts["model"]["name"]),
        "file": PurePath(str(source["path"])).name or str(source["path"]),
        "size": [int(source["height"]), int(source["width"])],
        "frames": int(source["frames"]) if source.get("frames") else None,
        "fps": json_number(source.get("fps")),
        "seen": dict(preview),
        "text": _text_record(text),
        "targets": [],
        "record": _provenance(facts),
    }
    texts = content["text"]
    content["title"] = texts.get("caption") or texts.get("question") or content["file"]
    for target, explanation in zip(facts["targets"], items, strict=True):
        content["targets"].append(_target_record(target, explanation, content["frames"], folder))
    return content


def _text_record(text: Mapping[str, Any]) -> dict[str, Any]:
    """The caption with its words, or the question, and the notes shown beside the maps."""
    content: dict[str, Any] = {
        key: str(text[key]) for key in ("caption", "question") if text.get(key) is not None
    }
    if "caption" in content:
        content["generated"] = bool(text.get("generated"))
        content["words"] = [
            {
                "text": str(word["text"]),
                "position": int(word["position"]),
                "probability": _probability(word.get("log_prob")),
            }
            for word in text.get("words", ())
        ]
    content["notes"] = [f"{note[0].upper()}{note[1:]}." for note in answer_notes(text)]
    return content


def answer_notes(text: Mapping[str, Any]) -> list[str]:
    """Notes on the answers and the question, for the page and the command line."""
    notes = []
    for answer in text.get("answers", ()):
        origin = "generated" if answer["generated"] else "forced"
        notes.append(
            f"{origin}: {answer['answer']} (log-likelihood {answer['log_likelihood']:.3f}, "
            f"{answer['per_token']:.3f} per token)"
        )
    if text.get("top"):
        top = ", ".join(f"{answer['answer']} {answer['probability']:.3f}" for answer in text["top"])
        notes.append(f"top answers: {top}")
    if text.get("unknown_words"):
        unknown = ", ".join(map(str, text["unknown_words"]))
        notes.append(f"words outside the model's vocabulary: {unknown}")
    if text.get("unread_words"):
        unread = text["unread_words"]
        notes.append(f"the question is truncated: its last {unread} words are left out")
    return notes


def _provenance(facts: Mapping[str, Any]) -> list[list[str]]:
    """The provenance of the result, as pairs of a name and a text.

    Pages are meant to be shared, so an absolute path is reduced to its last component, also in an
    argument such as `--out=/path`. The full paths are in `explanation.json`.
    """
    model, versions = facts["model"], facts.get("versions") or {}
    rows = {
        "file": _without_folder(facts["input"]["path"]),
        "SHA-256 of the file": facts["input"].get("sha256"),
        "weights": _without_folder(model.get("weights") or ""),
        "SHA-256 of the weights": model.get("weights_sha256"),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "command": " ".join(map(_without_folder, facts.get("command") or ())),
    }
    return [[name, str(value)] for name, value in rows.items() if value]


def _without_folder(value: object) -> str:
    """The value as text; an absolute path (also `--option=path`) becomes its last component."""
    text = str(value)
    option, equals, path_of_option = text.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={_without_folder(path_of_option)}"
    for path in (PurePosixPath(text), PureWindowsPath(text)):
        if path.is_absolute() and path.name:
            return path.name
    return text


def _target_record(
    facts: Mapping[str, Any], explanation: Explanation, frames: int | None, folder: str
) -> dict[str, Any]:
    """The record of one map; `frames` is the number of frames of the clip."""
    peak = facts["peak"]
    content: dict[str, Any] = {
        "label": explanation.label,
        "kind": explanation.target.kind,
        "position": explanation.target.position,
        "score": json_number(explanation.score),
        "probability": json_number(explanation.probability),
        "method": explanation.method,
        "layer": explanation.layer,
        "against": explanation.counterfactual,
        "empty": explanation.empty,
        "peak": [json_number(peak["x"]), json_number(peak["y"]), peak.get("frame")],
        "words": [[word, json_number(part)] for word, part in explanation.words],
        "box": list(explanation.placement.box),
        "extent": [list(interval) for interval in explanation.placement.extent],
    }
    if explanation.is_pixel_space and not explanation.is_clip:
        gradient = as_colours(_finite(explanation.cam))
        content["pixels"] = as_png(gradient_picture(gradient), GRADIENT_SIDE)
        return content
    saliency = _reduced_saliency(explanation)
    content["grid"] = list(saliency.shape)
    content["maximum"] = explanation.maximum
    content["map"] = base64.b64encode(quantise(saliency, explanation.maximum).tobytes()).decode()
    if explanation.is_clip:
        content["spans"] = [list(span) for span in explanation.placement.spans]
        content["evidence"] = evidence_curve(explanation, frames or explanation.frame_count)
        content["clip"] = quote(folder + str(facts["clip"])) if facts.get("clip") else None
    return content


def _reduced_saliency(explanation: Explanation) -> Float[Tensor, "*grid"]:
    """The map without colour channels; a clip's map larger than `MAX_CELLS` is max-pooled."""
    saliency = explanation.saliency
    height, width = saliency.shape[-2:]
    if not explanation.is_clip or max(height, width) <= MAX_CELLS:
        return saliency
    scale = MAX_CELLS / max(height, width)
    cells = max(1, round(height * scale)), max(1, round(width * scale))
    return F.adaptive_max_pool2d(saliency, cells)


def quantise(maps: Float[Tensor, "*grid"], maximum: float) -> UInt8[np.ndarray, "*grid"]:
    """The positive part divided by `maximum` and rounded to steps of 1 / 255; NaN becomes 0."""
    scaled = maps.nan_to_num(posinf=maximum).clamp(min=0) / (maximum or 1)
    steps: UInt8[np.ndarray, "*grid"] = np.rint(scaled.clamp(max=1).numpy() * LEVELS).astype(
        np.uint8
    )
    return steps


def evidence_curve(explanation: Explanation, frames: int) -> list[list[float | None]]:
    """The evidence over time: pairs of a frame and the mean of the map's positive part there.

    At most `MAX_POINTS` frames, evenly spaced. The value is None if no window covers the frame.

    Raises:
        InputError: the map has NaN or infinite values.
    """
    positions = np.linspace(0, frames - 1, min(frames, MAX_POINTS))
    indices = np.unique(positions.round().astype(int)).tolist()
    evidence = explanation.evidence().astype(np.float64)
    values = frame_weights(indices, explanation.placement, len(evidence)).numpy() @ evidence
    return [[i, json_number(value)] for i, value in zip(indices, values.tolist(), strict=True)]


def _finite(cam: Tensor) -> Float[np.ndarray, "channel h w"]:
    """The map with NaN and infinity replaced by 0."""
    values = cam.detach().float().cpu()
    finite: Float[np.ndarray, "channel h w"] = values.nan_to_num(posinf=0.0, neginf=0.0).numpy()
    return finite


def json_number(value: Any) -> float | None:
    """The value rounded to six significant digits; None if it is None, NaN or infinite."""
    if value is None or not math.isfinite(float(value)):
        return None
    return float(f"{float(value):.6g}")


def _probability(log_prob: float | None) -> float | None:
    return None if log_prob is None else json_number(math.exp(min(float(log_prob), 0.0)))
