"""All explanations of one picture or clip: select by label, save, read back, show in a notebook."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from mmcam import page
from mmcam.adapters.base.weights import file_hash
from mmcam.errors import InputError, LabelError, nearest
from mmcam.media import Clip, open_clip, read_image, write_image
from mmcam.media.images import make_folder
from mmcam.results import drawing
from mmcam.results.explanation import Explanation
from mmcam.results.files import (
    FACTS,
    MAPS,
    SCHEMA_VERSION,
    file_names,
    library_versions,
    model_facts,
    read_error,
    read_result,
    target_facts,
    write_facts,
    write_maps,
)
from mmcam.types import Adapter, Pixels, Sample


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """The picture that was explained.

    `path` is the sample's id: the path of the file, if the picture was read from a file. If the
    result was read from a folder, `pixels` is None, and `sha256` is the hash of that file.
    """

    path: str
    height: int
    width: int
    pixels: Pixels | None = None
    sha256: str | None = None

    def facts(self) -> dict[str, Any]:
        """The `input` entry of `explanation.json`."""
        return {
            "path": self.path,
            "sha256": self.sha256 or _hash(self.path),
            "width": self.width,
            "height": self.height,
        }

    def read(self) -> Pixels:
        """The pixels, from the file if the result was read from a folder.

        Raises:
            InputError: the file is missing, cannot be read, or has changed.
        """
        if self.pixels is not None:
            return self.pixels
        _check_file(self.path, self.sha256)
        return read_image(self.path).pixels


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """The clip that was explained, to reopen it for drawing.

    `source` is the argument of `open_clip`. If the result was read from a folder, `source` is None,
    and the clip is opened from `path`.
    """

    path: str
    frames: int
    fps: float
    height: int
    width: int
    source: Any = None
    sha256: str | None = None

    def facts(self) -> dict[str, Any]:
        """The `input` entry of `explanation.json`."""
        return {
            "path": self.path,
            "sha256": self.sha256 or _hash(self.path),
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "fps": self.fps,
        }

    def open(self) -> Clip:
        """The clip, opened again.

        Raises:
            InputError: the clip is missing or broken, or its file has changed.
        """
        if self.source is not None:
            return open_clip(self.source, fps=self.fps)
        _check_file(self.path, self.sha256)
        return open_clip(self.path, fps=self.fps)


def _hash(path: str) -> str | None:
    """The SHA-256 of the input's file; None if the input is not a file."""
    return file_hash(path) if os.path.isfile(path) else None


def _check_file(path: str, sha256: str | None) -> None:
    """Check that the input file of a result is the one that was explained.

    Raises:
        InputError: the file is missing, or has changed.
    """
    if not os.path.exists(path):
        raise InputError(
            f"the input '{path}' is missing, so the maps cannot be drawn on it; put "
            "the file back (the raw maps and heatmaps need no file)"
        )
    if sha256 is not None and _hash(path) != sha256:
        raise InputError(
            f"'{path}' has changed since it was explained (its SHA-256 differs); put the old file "
            "back, or explain the new one"
        )


def read(folder: str | Path) -> Explanations:
    """Read the explanations in a folder that `Explanations.save` or a command wrote.

    The maps need neither the model nor the input; to draw and save them again, the input must still
    be at its path.

    Raises:
        InputError: the folder has no result, or the result is broken or has another schema
            version.
    """
    facts, explanations = read_result(Path(folder))
    try:
        source = _source(facts["input"])
        task, model = facts["task"], dict(facts["model"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise read_error(Path(folder), error) from error
    return Explanations(tuple(explanations), task, model, source, facts.get("text"))


def _source(entry: Mapping[str, Any]) -> ImageSource | ClipSource:
    """The picture or clip of the `input` entry of `explanation.json`."""
    fields: dict[str, Any] = {
        "path": str(entry["path"]),
        "sha256": entry.get("sha256"),
        "height": int(entry["height"]),
        "width": int(entry["width"]),
    }
    if entry.get("frames"):
        return ClipSource(**fields, frames=int(entry["frames"]), fps=float(entry["fps"]))
    return ImageSource(**fields)


@dataclass(frozen=True, eq=False)
class Explanations(Sequence[Explanation]):
    """All explanations of one picture or clip, in the order of the request.

    An index is a position, or a label that has exactly one map: `maps["dog"]`. Any other label
    raises `LabelError`. `text` is the text of the task, if any: a caption with its words and their
    log-probabilities, or a question and its answers.
    """

    items: tuple[Explanation, ...]
    task: str
    model: dict[str, Any]
    source: ImageSource | ClipSource
    text: Mapping[str, Any] | None = None

    @staticmethod
    def of_picture(
        model: Adapter,
        sample: Sample,
        task: Any,
        explanations: Sequence[Explanation],
        text: Mapping[str, Any] | None = None,
    ) -> Explanations:
        """The results for one picture."""
        height, width = sample.pixels.shape[:2]
        source = ImageSource(path=sample.id, height=height, width=width, pixels=sample.pixels)
        return Explanations(tuple(explanations), _task_name(task), model_facts(model), source, text)

    @staticmethod
    def of_clip(
        model: Adapter, clip: Clip, task: Any, explanations: Sequence[Explanation]
    ) -> Explanations:
        """The results for one clip."""
        source = ClipSource(
            path=str(clip.path),
            frames=clip.frames,
            fps=float(clip.fps),
            height=clip.height,
            width=clip.width,
            source=clip.source,
        )
        return Explanations(tuple(explanations), _task_name(task), model_facts(model), source)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, key: int | str) -> Explanation: ...

    @overload
    def __getitem__(self, key: slice) -> Sequence[Explanation]: ...

    def __getitem__(self, key: int | str | slice) -> Explanation | Sequence[Explanation]:
        if not isinstance(key, str):
            return self.items[key]
        matches = self.select(label=key)
        if len(matches) > 1:
            choices = ", ".join(
                f"{e.method} at {e.layer}"
                + ("" if e.target.position is None else f", position {e.target.position}")
                for e in matches
            )
            raise LabelError(
                f"'{key}' has {len(matches)} maps ({choices}); choose with select(label=..., "
                "method=..., layer=..., position=...)"
            )
        return matches[0]

    def select(
        self,
        label: str | None = None,
        method: str | None = None,
        layer: str | None = None,
        position: int | None = None,
    ) -> list[Explanation]:
        """The explanations with this label, method, layer and position; None matches all.

        Raises:
            LabelError: no explanation matches.
        """
        matches = [
            e
            for e in self.items
            if label in (None, e.label)
            and method in (None, e.method)
            and layer in (None, e.layer)
            and position in (None, e.target.position)
        ]
        if not matches:
            labels = {e.label for e in self.items}
            listed = nearest(label, labels) if label else ", ".join(sorted(labels))
            raise LabelError(
                f"no explanation has label={label!r}, method={method!r}, layer={layer!r}, "
                f"position={position!r}; labels here: {listed}"
            )
        return matches

    def save(
        self,
        folder: str | Path,
        *,
        command: Sequence[str] = (),
        panes: Sequence[str] = tuple(drawing.PANES),
        colormap: str = "inferno",
        frames: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Path]:
        """Write `explanation.json`, `maps.safetensors`, drawings of the maps, and a page.

        The drawings of a picture are an overlay for each map and, for several maps, a sheet of all.
        The drawings of a clip are, for each map, the drawn clip and a sheet of some of its frames.

        Args:
            folder: created if it does not exist.
            command: the command line of this run, for the record.
            panes: the panes of a clip, side by side; each a name in `drawing.PANES`.
            colormap: the name of the colour map of the overlays.
            frames: write each frame of a clip as PNG too.
            progress: called with (frames drawn, all frames) for each map of a clip.

        Returns:
            The files written, except the PNGs of single frames.

        Raises:
            InputError: an unknown colour map or pane, an input that is missing or has changed, or
                a map with NaN or infinite values.
            OutputError: a file cannot be written; no partial file is left.
        """
        drawing.check_drawing_options(colormap, panes)
        folder = Path(folder)
        make_folder(folder)
        names = file_names(self.items)
        if isinstance(self.source, ImageSource):
            drawn = self._save_pictures(folder, names, colormap)
        else:
            drawn = self._save_clips(folder, names, panes, colormap, frames, progress)
        maps_file = folder / MAPS
        write_maps(maps_file, dict(zip(names, self.items, strict=True)))
        facts_file = folder / FACTS
        facts = self._facts(names, command)
        write_facts(facts_file, facts)
        preview = self._preview(panes)
        page.write_page(folder / page.PAGE, page.page(page.record(facts, self, preview), colormap))
        return [facts_file, maps_file, *drawn, folder / page.PAGE]

    def _repr_html_(self) -> str:
        """The page of the maps in an iframe, for notebooks."""
        preview = {**self._preview(()), "player": None}  # a notebook has no video file beside it
        return page.notebook(page.record(self._facts(file_names(self.items), ()), self, preview))

    def _preview(self, panes: Sequence[str]) -> dict[str, Any]:
        """The preview of the picture or clip for the page."""
        if isinstance(self.source, ImageSource):
            return page.image_preview(self.source.read())
        with self.source.open() as clip:
            return page.clip_preview(clip, panes)

    def _save_pictures(self, folder: Path, names: Sequence[str], colormap: str) -> list[Path]:
        assert isinstance(self.source, ImageSource)
        pixels = self.source.read()
        paths = []
        for name, explanation in zip(names, self.items, strict=True):
            paths.append(folder / f"overlay-{name}.png")
            write_image(paths[-1], drawing.draw_explanation(explanation, pixels, colormap))
        if len(self.items) > 1:
            paths.append(folder / "sheet.png")
            text = self.text and (self.text.get("caption") or self.text.get("question"))
            title = Path(self.source.path).name + (f": {text}" if text else "")
            write_image(paths[-1], drawing.picture_sheet(self.items, pixels, title, colormap))
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
        assert isinstance(self.source, ClipSource)
        paths = []
        for name, explanation in zip(names, self.items, strict=True):
            with self.source.open() as clip:
                paths += [folder / f"clip-{name}.mp4", folder / f"overlay-{name}.png"]
                frames_folder = folder / f"frames-{name}" if frames else None
                if frames_folder is not None:
                    make_folder(frames_folder)
                drawing.write_clip(
                    paths[-2], explanation, clip, panes, colormap, frames_folder, progress
                )
                write_image(paths[-1], drawing.clip_sheet(explanation, clip, colormap))
        return paths

    def _facts(self, names: Sequence[str], command: Sequence[str]) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "task": self.task,
            "model": self.model,
            "input": self.source.facts(),
            **({"text": dict(self.text)} if self.text else {}),
            "targets": [target_facts(n, e) for n, e in zip(names, self.items, strict=True)],
            "versions": library_versions(),
            "command": list(command),
        }


def _task_name(task: Any) -> str:
    return str(getattr(task, "name", "targets"))
