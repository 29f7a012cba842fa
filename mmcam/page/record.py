"""A result as a page holds it: plain values, texts, quantised maps."""

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
from mmcam.render import gradient_picture
from mmcam.render.inline import as_png
from mmcam.results.explanation import Explanation

LEVELS = 255
CELLS = 64
"""The longer side of the grid in which a page shows a clip's pixel-space map."""

SAMPLES = 240
"""How many points a curve over the frames of a clip has, at most."""

GRADIENT_SIDE = 1024


def record(
    facts: Mapping[str, Any],
    items: Sequence[Explanation],
    seen: Mapping[str, Any],
    folder: str = "",
) -> dict[str, Any]:
    """What a page shows of one result.

    Args:
        facts: the content of `explanation.json`.
        items: the maps, in the order of its targets.
        seen: the picture or the frames (`image_preview`, `clip_preview`).
        folder: where the result's clips are, as seen from the page: "" or with a slash at the end.
    """
    entry = facts["input"]
    text = facts.get("text") or {}
    found: dict[str, Any] = {
        "task": str(facts["task"]),
        "model": str(facts["model"]["name"]),
        "file": PurePath(str(entry["path"])).name or str(entry["path"]),
        "size": [int(entry["height"]), int(entry["width"])],
        "frames": int(entry["frames"]) if entry.get("frames") else None,
        "fps": number(entry.get("fps")),
        "seen": dict(seen),
        "text": _text(text),
        "targets": [],
        "record": _provenance(facts),
    }
    found["title"] = found["text"].get("caption") or found["text"].get("question") or found["file"]
    for target, item in zip(facts["targets"], items, strict=True):
        found["targets"].append(_target(target, item, found["frames"], folder))
    return found


def _text(text: Mapping[str, Any]) -> dict[str, Any]:
    """The words that were said or asked, and what is told beside the maps."""
    kept: dict[str, Any] = {
        key: str(text[key]) for key in ("caption", "question") if text.get(key) is not None
    }
    if "caption" in kept:
        kept["generated"] = bool(text.get("generated"))
        kept["words"] = [
            {
                "text": str(word["text"]),
                "position": int(word["position"]),
                "probability": probability(word.get("log_prob")),
            }
            for word in text.get("words", ())
        ]
    kept["notes"] = [f"{note[0].upper()}{note[1:]}." for note in notes(text)]
    return kept


def notes(text: Mapping[str, Any]) -> list[str]:
    """What there is to say beside the maps of an answer: on a page and on the command line."""
    found = []
    for one in text.get("answers", ()):
        by = "the model answers" if one["generated"] else "forced"
        found.append(
            f"{by}: {one['answer']} (log-likelihood {one['log_likelihood']:.3f}, "
            f"{one['per_token']:.3f} a token)"
        )
    if text.get("top"):
        own = ", ".join(f"{one['answer']} {one['probability']:.3f}" for one in text["top"])
        found.append(f"the model's own answers: {own}")
    if text.get("unknown_words"):
        unknown = ", ".join(map(str, text["unknown_words"]))
        found.append(f"words that the model does not know: {unknown}")
    if text.get("unread_words"):
        unread = text["unread_words"]
        found.append(f"the model does not read the last {unread} words of the question")
    return found


def _provenance(facts: Mapping[str, Any]) -> list[list[str]]:
    """Where all this comes from, as pairs of a name and a text.

    A page is there to be sent on, so it does not say in which folders of whom the files lay;
    `explanation.json` does.
    """
    model, versions = facts["model"], facts.get("versions") or {}
    rows = {
        "file": _bare(facts["input"]["path"]),
        "SHA-256 of the file": facts["input"].get("sha256"),
        "weights": _bare(model.get("weights") or ""),
        "SHA-256 of the weights": model.get("weights_sha256"),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "command": " ".join(map(_bare, facts.get("command") or ())),
    }
    return [[name, str(value)] for name, value in rows.items() if value]


def _bare(text: object) -> str:
    """A text, of which only the last part is left if it is an absolute path."""
    written = str(text)
    for path in (PurePosixPath(written), PureWindowsPath(written)):
        if path.is_absolute() and path.name:
            return path.name
    return written


def _target(
    facts: Mapping[str, Any], item: Explanation, frames: int | None, folder: str
) -> dict[str, Any]:
    peak = facts["peak"]
    made: dict[str, Any] = {
        "label": item.label,
        "kind": item.target.kind,
        "position": item.target.position,
        "score": number(item.score),
        "probability": number(item.probability),
        "method": item.method,
        "layer": item.layer,
        "against": item.counterfactual,
        "empty": item.empty,
        "peak": [number(peak["x"]), number(peak["y"]), peak.get("frame")],
        "words": [[word, number(part)] for word, part in item.words],
        "box": list(item.placement.box),
    }
    if item.has_colours and not item.is_clip:
        made["pixels"] = as_png(gradient_picture(_finite(item.cam)), GRADIENT_SIDE)
        return made
    grid = _grid(item)
    made["grid"] = list(grid.shape)
    made["maximum"] = item.maximum
    made["map"] = base64.b64encode(quantised(grid, item.maximum).tobytes()).decode()
    if item.is_clip:
        made["spans"] = [list(span) for span in item.placement.spans]
        made["evidence"] = evidence(item, frames or item.frame_count)
        made["clip"] = quote(folder + str(facts["clip"])) if facts.get("clip") else None
    return made


def _grid(item: Explanation) -> Float[Tensor, "*grid"]:
    """The map without colour; that of a clip's pixels in cells, each with its highest value."""
    saliency = item.saliency
    height, width = saliency.shape[-2:]
    if not item.is_clip or max(height, width) <= CELLS:
        return saliency
    scale = CELLS / max(height, width)
    cells = max(1, round(height * scale)), max(1, round(width * scale))
    return F.adaptive_max_pool2d(saliency, cells)


def quantised(maps: Float[Tensor, "*grid"], maximum: float) -> UInt8[np.ndarray, "*grid"]:
    """The positive part as shares of `maximum`, in 255 steps: off by at most half a step."""
    shares = maps.nan_to_num(posinf=maximum).clamp(min=0) / (maximum or 1)
    steps: UInt8[np.ndarray, "*grid"] = np.rint(shares.clamp(max=1).numpy() * LEVELS).astype(
        np.uint8
    )
    return steps


def evidence(item: Explanation, frames: int) -> list[list[float | None]]:
    """The evidence over time: pairs of a frame and the mean positive value that the map has there.

    What no window covers is None.
    """
    at = np.unique(np.linspace(0, frames - 1, min(frames, SAMPLES)).round().astype(int)).tolist()
    each = item.evidence().astype(np.float64)
    values = frame_weights(at, item.placement, len(each)).numpy() @ each
    return [[frame, number(value)] for frame, value in zip(at, values.tolist(), strict=True)]


def _finite(cam: Tensor) -> Float[np.ndarray, "3 h w"]:
    values = cam.detach().float().cpu()
    found: Float[np.ndarray, "3 h w"] = values.nan_to_num(posinf=0.0, neginf=0.0).numpy()
    return found


def number(value: Any) -> float | None:
    """A number that JSON can hold, in six digits; None for what is none."""
    if value is None or not math.isfinite(float(value)):
        return None
    return float(f"{float(value):.6g}")


def probability(log_prob: float | None) -> float | None:
    """From its logarithm."""
    return None if log_prob is None else number(math.exp(min(0.0, float(log_prob))))
