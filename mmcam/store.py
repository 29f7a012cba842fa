"""The results of one explanation, and the files they become (schema version 1)."""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from mmcam import draw, page
from mmcam.adapters.base.weights import file_hash
from mmcam.errors import LabelError, nearest
from mmcam.explanation import Explanation
from mmcam.media import Clip, open_clip, write_image
from mmcam.media.images import make_folder, replacing
from mmcam.page.folders import FACTS, MAPS, PAGE, SCHEMA_VERSION
from mmcam.types import Adapter, Pixels, Placement, Sample

LIBRARIES = ("mmcam", "torch", "torchvision", "transformers", "timm", "pytorchvideo", "numpy")


@dataclass(frozen=True)
class Picture:
    """The picture that was explained."""

    path: str
    pixels: Pixels

    def facts(self) -> dict[str, Any]:
        """What `explanation.json` says of the input."""
        height, width = self.pixels.shape[:2]
        return {"path": self.path, "sha256": _hash(self.path), "width": width, "height": height}


@dataclass(frozen=True)
class Film:
    """The clip that was explained: where it is, to be opened again when it is drawn."""

    path: str
    frames: int
    fps: float
    height: int
    width: int
    source: Any

    def facts(self) -> dict[str, Any]:
        """What `explanation.json` says of the input."""
        return {
            "path": self.path,
            "sha256": _hash(self.path),
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "fps": self.fps,
        }


def _hash(path: str) -> str | None:
    """SHA-256 of the input's file; None for what is no file."""
    return file_hash(path) if os.path.isfile(path) else None


@dataclass(frozen=True, eq=False)
class Explanations(Sequence[Explanation]):
    """All explanations of one picture or clip, in the order in which they were asked for.

    Found by position, or by label where there is one map of it: `maps["dog"]`. `text` is what was
    said, where something was: a caption with its words and their log-probabilities.
    """

    items: tuple[Explanation, ...]
    task: str
    model: dict[str, Any]
    source: Picture | Film
    text: Mapping[str, Any] | None = field(default=None)

    @staticmethod
    def of_picture(
        model: Adapter,
        sample: Sample,
        task: Any,
        explanations: Sequence[Explanation],
        text: Mapping[str, Any] | None = None,
    ) -> Explanations:
        """The results for one picture."""
        source = Picture(path=sample.id, pixels=sample.pixels)
        return Explanations(tuple(explanations), _task(task), _model(model), source, text)

    @staticmethod
    def of_clip(
        model: Adapter, clip: Clip, task: Any, found: Sequence[Explanation]
    ) -> Explanations:
        """The results for one clip."""
        source = Film(
            path=str(clip.path),
            frames=clip.frames,
            fps=float(clip.fps),
            height=clip.height,
            width=clip.width,
            source=clip.source,
        )
        return Explanations(tuple(found), _task(task), _model(model), source)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, key: int | str) -> Explanation: ...

    @overload
    def __getitem__(self, key: slice) -> Sequence[Explanation]: ...

    def __getitem__(self, key: int | str | slice) -> Explanation | Sequence[Explanation]:
        if not isinstance(key, str):
            return self.items[key]
        found = self.select(label=key)
        if len(found) > 1:
            kinds = ", ".join(
                f"{e.method} at {e.layer}"
                + ("" if e.target.position is None else f", position {e.target.position}")
                for e in found
            )
            raise LabelError(
                f"'{key}' has {len(found)} maps ({kinds}); choose with select(label=..., "
                "method=..., layer=..., position=...)"
            )
        return found[0]

    def select(
        self,
        label: str | None = None,
        method: str | None = None,
        layer: str | None = None,
        position: int | None = None,
    ) -> list[Explanation]:
        """The explanations with this label, method, layer and position; None matches all.

        Raises:
            LabelError: there is none.
        """
        found = [
            e
            for e in self.items
            if label in (None, e.label)
            and method in (None, e.method)
            and layer in (None, e.layer)
            and position in (None, e.target.position)
        ]
        if not found:
            have = {e.label for e in self.items}
            raise LabelError(
                f"nothing here has label={label!r}, method={method!r}, layer={layer!r}, "
                f"position={position!r}; "
                f"labels here: {nearest(label or '', have) if label else ', '.join(sorted(have))}"
            )
        return found

    def save(
        self,
        folder: str | Path,
        *,
        command: Sequence[str] = (),
        panes: Sequence[str] = tuple(draw.PANES),
        colormap: str = "inferno",
        frames: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Path]:
        """Write `explanation.json`, `maps.safetensors`, a picture or clip for each map, and a page.

        Args:
            folder: made if it is not there.
            command: the command line that asked, for the record.
            panes: what a clip shows side by side, names of `draw.PANES`.
            colormap: the colours of the overlays.
            frames: write each frame of a clip as PNG too.
            progress: called with (frames drawn, frames in all) for clips.

        Returns:
            The files written.

        Raises:
            OutputError: something cannot be written; no half file stays behind.
        """
        draw.check_look(colormap, panes)
        folder = Path(folder)
        make_folder(folder)
        names = _names(self.items)
        if isinstance(self.source, Picture):
            drawn = self._save_pictures(folder, names, colormap)
        else:
            drawn = self._save_clips(folder, names, panes, colormap, frames, progress)
        maps = folder / MAPS
        _save_maps(maps, dict(zip(names, self.items, strict=True)))
        facts = folder / FACTS
        known = self._facts(names, command)
        content = json.dumps(known, indent=1, ensure_ascii=False)
        with replacing(facts) as temporary:
            # Half a pair, as in a file name that is no UTF-8, becomes JSON's own escape of it.
            temporary.write_bytes(f"{content}\n".encode(errors="backslashreplace"))
        seen = self._seen(panes)
        page.write_page(folder / PAGE, page.page(page.record(known, self, seen), colormap))
        return [facts, maps, *drawn, folder / PAGE]

    def _repr_html_(self) -> str:
        """The page of the maps, in a frame of its own, as notebooks show it."""
        seen = {**self._seen(()), "player": None}  # there is no file to play
        return page.notebook(page.record(self._facts(_names(self.items), ()), self, seen))

    def _seen(self, panes: Sequence[str]) -> dict[str, Any]:
        """What the model was shown, as a page holds it."""
        if isinstance(self.source, Picture):
            return page.picture_seen(self.source.pixels)
        with open_clip(self.source.source, fps=self.source.fps) as clip:
            return page.clip_seen(clip, panes)

    def _save_pictures(self, folder: Path, names: Sequence[str], colormap: str) -> list[Path]:
        assert isinstance(self.source, Picture)
        pixels = self.source.pixels
        paths = []
        for name, explanation in zip(names, self.items, strict=True):
            paths.append(folder / f"overlay-{name}.png")
            write_image(paths[-1], draw.picture(explanation, pixels, colormap))
        if len(self.items) > 1:
            paths.append(folder / "sheet.png")
            said = self.text and (self.text.get("caption") or self.text.get("question"))
            title = Path(self.source.path).name + (f": {said}" if said else "")
            write_image(paths[-1], draw.picture_sheet(self.items, pixels, title, colormap))
        return paths

    def _save_clips(
        self,
        folder: Path,
        names: Sequence[str],
        panes: Sequence[str],
        colormap: str,
        frames: bool,
        progress: Callable[[int, int], None] | None,
    ) -> list[Path]:
        assert isinstance(self.source, Film)
        paths = []
        for name, explanation in zip(names, self.items, strict=True):
            with open_clip(self.source.source, fps=self.source.fps) as clip:
                paths += [folder / f"clip-{name}.mp4", folder / f"overlay-{name}.png"]
                into = folder / f"frames-{name}" if frames else None
                if into is not None:
                    make_folder(into)
                draw.write_clip(paths[-2], explanation, clip, panes, colormap, into, progress)
                write_image(paths[-1], draw.clip_sheet(explanation, clip, colormap))
        return paths

    def _facts(self, names: Sequence[str], command: Sequence[str]) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "task": self.task,
            "model": self.model,
            "input": self.source.facts(),
            **({"text": dict(self.text)} if self.text else {}),
            "targets": [_facts(n, e) for n, e in zip(names, self.items, strict=True)],
            "versions": versions(),
            "command": list(command),
        }


def _task(task: Any) -> str:
    return str(getattr(task, "name", "targets"))


def _model(model: Adapter) -> dict[str, Any]:
    return {
        "name": model.name,
        "weights": model.weights.source if model.weights else None,
        "weights_sha256": model.weights.sha256 if model.weights else None,
        "default_layer": list(model.layers),
    }


def _facts(name: str, explanation: Explanation) -> dict[str, Any]:
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


def _names(items: Sequence[Explanation]) -> list[str]:
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


def _save_maps(path: Path, maps: dict[str, Explanation]) -> None:
    """The raw maps in float32; the metadata says for each how it lies on the original."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {
        name: e.cam.detach().float().cpu().contiguous().clone() for name, e in maps.items()
    }
    metadata = {
        name: json.dumps(_geometry(e.placement, e.saliency.shape)) for name, e in maps.items()
    }
    with replacing(path) as temporary:  # save_file would hide the file from all but its owner
        temporary.write_bytes(save(tensors, metadata=metadata))


def _geometry(placement: Placement, grid: Sequence[int]) -> dict[str, Any]:
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
