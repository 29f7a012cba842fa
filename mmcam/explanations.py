"""All explanations of one picture or clip: found by label, saved, read back, shown in notebooks."""

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
    facts_of,
    file_names,
    model_facts,
    read_result,
    versions,
    write_facts,
    write_maps,
)
from mmcam.types import Adapter, Pixels, Sample


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """The picture that was explained: its pixels, or the path and hash of its file."""

    path: str
    height: int
    width: int
    pixels: Pixels | None = None
    sha256: str | None = None

    def facts(self) -> dict[str, Any]:
        """What `explanation.json` says of the input."""
        return {
            "path": self.path,
            "sha256": self.sha256 or _hash(self.path),
            "width": self.width,
            "height": self.height,
        }

    def read(self) -> Pixels:
        """The pixels, from the file if the result was read from a folder.

        Raises:
            InputError: the file is not there, or has changed.
        """
        if self.pixels is not None:
            return self.pixels
        _check_file(self.path, self.sha256)
        return read_image(self.path).pixels


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """The clip that was explained: where it is, to be opened again when it is drawn."""

    path: str
    frames: int
    fps: float
    height: int
    width: int
    source: Any = None
    sha256: str | None = None

    def facts(self) -> dict[str, Any]:
        """What `explanation.json` says of the input."""
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
            InputError: it is not there, or its file has changed.
        """
        if self.source is not None:
            return open_clip(self.source, fps=self.fps)
        _check_file(self.path, self.sha256)
        return open_clip(self.path, fps=self.fps)


def _hash(path: str) -> str | None:
    """SHA-256 of the input's file; None if the input is no file."""
    return file_hash(path) if os.path.isfile(path) else None


def _check_file(path: str, sha256: str | None) -> None:
    """Check that the input of a result is the one that was explained.

    Raises:
        InputError: the file is not there, or has changed.
    """
    if not os.path.exists(path):
        raise InputError(
            f"'{path}', which was explained, is not there any more, so its maps cannot be drawn on "
            "it; put the file back (the raw maps and heatmaps need no file)"
        )
    if sha256 is not None and _hash(path) != sha256:
        raise InputError(
            f"'{path}' has changed since it was explained (its SHA-256 is another one); put the "
            "old file back, or explain the new one"
        )


def read(folder: str | Path) -> Explanations:
    """The explanations in a folder that `Explanations.save` or a command wrote.

    Neither the model nor the input is needed for the maps; to draw and save them again, the input
    must still lie where it was.

    Raises:
        InputError: the folder holds no result, or a broken one.
    """
    facts, explanations = read_result(Path(folder))
    entry = facts["input"]
    known: dict[str, Any] = {
        "path": str(entry["path"]),
        "sha256": entry.get("sha256"),
        "height": int(entry["height"]),
        "width": int(entry["width"]),
    }
    source: ImageSource | ClipSource
    if entry.get("frames"):
        source = ClipSource(**known, frames=int(entry["frames"]), fps=float(entry["fps"]))
    else:
        source = ImageSource(**known)
    return Explanations(
        tuple(explanations), facts["task"], facts["model"], source, facts.get("text")
    )


@dataclass(frozen=True, eq=False)
class Explanations(Sequence[Explanation]):
    """All explanations of one picture or clip, in the order in which they were asked for.

    Found by position, or by label where there is one map of it: `maps["dog"]`. `text` is what was
    said, where something was: a caption with its words and their log-probabilities.
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
        return Explanations(tuple(explanations), _task(task), model_facts(model), source, text)

    @staticmethod
    def of_clip(
        model: Adapter, clip: Clip, task: Any, found: Sequence[Explanation]
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
        return Explanations(tuple(found), _task(task), model_facts(model), source)

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
        panes: Sequence[str] = tuple(drawing.PANES),
        colormap: str = "inferno",
        frames: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Path]:
        """Write `explanation.json`, `maps.safetensors`, a picture or clip for each map, and a page.

        Args:
            folder: made if it is not there.
            command: the command line that asked, for the record.
            panes: what a clip shows side by side, names of `drawing.PANES`.
            colormap: the colours of the overlays.
            frames: write each frame of a clip as PNG too.
            progress: called with (frames drawn, frames in all) for clips.

        Returns:
            The files written.

        Raises:
            OutputError: something cannot be written; no half file stays behind.
        """
        drawing.check_look(colormap, panes)
        folder = Path(folder)
        make_folder(folder)
        names = file_names(self.items)
        if isinstance(self.source, ImageSource):
            drawn = self._save_pictures(folder, names, colormap)
        else:
            drawn = self._save_clips(folder, names, panes, colormap, frames, progress)
        maps = folder / MAPS
        write_maps(maps, dict(zip(names, self.items, strict=True)))
        facts = folder / FACTS
        known = self._facts(names, command)
        write_facts(facts, known)
        seen = self._seen(panes)
        page.write_page(folder / page.PAGE, page.page(page.record(known, self, seen), colormap))
        return [facts, maps, *drawn, folder / page.PAGE]

    def _repr_html_(self) -> str:
        """The page of the maps, in a frame of its own, as notebooks show it."""
        seen = {**self._seen(()), "player": None}  # there is no file to play
        return page.notebook(page.record(self._facts(file_names(self.items), ()), self, seen))

    def _seen(self, panes: Sequence[str]) -> dict[str, Any]:
        """What the model was shown, as a page holds it."""
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
            write_image(paths[-1], drawing.picture(explanation, pixels, colormap))
        if len(self.items) > 1:
            paths.append(folder / "sheet.png")
            said = self.text and (self.text.get("caption") or self.text.get("question"))
            title = Path(self.source.path).name + (f": {said}" if said else "")
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
                into = folder / f"frames-{name}" if frames else None
                if into is not None:
                    make_folder(into)
                drawing.write_clip(paths[-2], explanation, clip, panes, colormap, into, progress)
                write_image(paths[-1], drawing.clip_sheet(explanation, clip, colormap))
        return paths

    def _facts(self, names: Sequence[str], command: Sequence[str]) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "task": self.task,
            "model": self.model,
            "input": self.source.facts(),
            **({"text": dict(self.text)} if self.text else {}),
            "targets": [facts_of(n, e) for n, e in zip(names, self.items, strict=True)],
            "versions": versions(),
            "command": list(command),
        }


def _task(task: Any) -> str:
    return str(getattr(task, "name", "targets"))
