"""All explanations of one picture or clip: select by label, save, read back, show in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

from mmcam import page
from mmcam.errors import LabelError, nearest
from mmcam.media import Clip, write_image
from mmcam.media.images import make_folder
from mmcam.render import OPACITY
from mmcam.render.plots import import_pyplot
from mmcam.results import drawing, plotting
from mmcam.results.explanation import Explanation, shortened
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
from mmcam.results.sources import ClipSource, ImageSource, source_of
from mmcam.results.table import dataframe
from mmcam.types import Adapter, Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

SHOWN_LABELS = 6
"""The number of labels in the text of `repr`, at most."""


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
        source = source_of(facts["input"])
        task, model = facts["task"], dict(facts["model"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise read_error(Path(folder), error) from error
    return Explanations(tuple(explanations), task, model, source, facts.get("text"))


@dataclass(frozen=True, eq=False, repr=False)
class Explanations(Sequence[Explanation]):
    """All explanations of one picture or clip, in the order of the request.

    An index is a position, or a label that has exactly one map: `maps["dog"]`. Any other label
    raises `LabelError`; `"dog" in maps` tells whether a label has a map. `text` is the text of the
    task, if any: a caption with its words and their log-probabilities, or a question and its
    answers.
    """

    items: tuple[Explanation, ...]
    task: str
    model: dict[str, Any]
    source: ImageSource | ClipSource
    text: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        items = (
            item if item.source is self.source else replace(item, source=self.source)
            for item in self.items
        )
        object.__setattr__(self, "items", tuple(items))

    def __repr__(self) -> str:
        labels = [shortened(label, 24) for label in self.labels]
        if len(labels) > SHOWN_LABELS:
            labels[SHOWN_LABELS - 1 :] = [f"… {len(labels) - SHOWN_LABELS + 1} more"]
        model, source = str(self.model["name"]), Path(self.source.path).name
        return (
            f"Explanations(labels=[{', '.join(labels)}], maps={len(self)}, "
            f"model={shortened(model)}, source={shortened(source)})"
        )

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

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the maps, without repeats."""
        return tuple(dict.fromkeys(explanation.label for explanation in self.items))

    @property
    def words(self) -> tuple[Explanation, ...]:
        """The explanations of the words of a caption, in reading order; empty for other tasks.

        A word that is explained by several methods or at several layers has a map for each.

        Example:
            >>> for word in maps.words:
            ...     print(word.position, word.label, word.score)
        """
        words = [explanation for explanation in self.items if explanation.target.kind == "word"]
        return tuple(sorted(words, key=lambda word: word.position or 0))

    def to(self, device: str | torch.device) -> Explanations:
        """The same explanations with their maps on another device.

        The results still keep the model in memory, through the functions of their targets; a
        pickled copy does not (see `Target`).

        Raises:
            InputError: the device cannot be used.
        """
        return replace(self, items=tuple(explanation.to(device) for explanation in self.items))

    def to_dataframe(self) -> DataFrame:
        """A table of the maps for pandas: one row for each, in their order.

        The columns are named as in `explanation.json`: label, kind, index, position, score,
        score_name, log_prob, probability, method, layer, counterfactual, grid (the map's shape),
        peak_x, peak_y and peak_frame (on the original, in pixels), empty (no positive evidence);
        and source, the path of the picture or clip.

        Raises:
            InputError: a map has NaN or infinite values.
            MissingExtra: pandas is not installed (`pip install 'mmcam[notebook]'`).
        """
        return dataframe(self.items, self.source.path)

    def plot(
        self,
        *,
        frame: int | None = None,
        columns: int | None = None,
        colormap: str = "inferno",
        opacity: float = OPACITY,
    ) -> list[Axes]:
        """Draw all maps side by side in a new figure of matplotlib, after the original picture.

        Args:
            frame: the frame of a clip; for each map, the frame of its peak if None.
            columns: the number of pictures in a row; if None, chosen by their number.
            colormap: one of `mmcam.render.COLORMAPS`.
            opacity: the opacity of the largest value, in [0, 1].

        Returns:
            The axes of each map, in the order of the maps.

        Raises:
            InputError: there are no maps, `columns` is not a positive integer, or as
                `Explanation.overlay`.
            MissingExtra: matplotlib is not installed (`pip install 'mmcam[notebook]'`).

        Example:
            >>> maps.plot()[0].figure.savefig("maps.png")
        """
        return plotting.plot_all(self.items, self._title(), frame, columns, colormap, opacity)

    def show(
        self,
        *,
        frame: int | None = None,
        columns: int | None = None,
        colormap: str = "inferno",
        opacity: float = OPACITY,
    ) -> None:
        """Plot all maps and show the figure, in the notebook or in a window.

        Args:
            frame: as in `plot`.
            columns: as in `plot`.
            colormap: as in `plot`.
            opacity: as in `plot`.

        Raises:
            InputError: as `plot`.
            MissingExtra: matplotlib is not installed (`pip install 'mmcam[notebook]'`).
        """
        self.plot(frame=frame, columns=columns, colormap=colormap, opacity=opacity)
        import_pyplot().show()

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

    def __contains__(self, item: object) -> bool:
        """Whether there is a map of a label, or an explanation is one of these."""
        if isinstance(item, str):
            return any(explanation.label == item for explanation in self.items)
        return any(explanation is item for explanation in self.items)

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

    def _title(self) -> str:
        """The name of the picture or clip, and the caption or question, if any."""
        text = self.text and (self.text.get("caption") or self.text.get("question"))
        return Path(self.source.path).name + (f": {text}" if text else "")

    def _save_pictures(self, folder: Path, names: Sequence[str], colormap: str) -> list[Path]:
        assert isinstance(self.source, ImageSource)
        pixels = self.source.read()
        paths = []
        for name, explanation in zip(names, self.items, strict=True):
            paths.append(folder / f"overlay-{name}.png")
            write_image(paths[-1], drawing.draw_explanation(explanation, pixels, colormap))
        if len(self.items) > 1:
            paths.append(folder / "sheet.png")
            sheet = drawing.picture_sheet(self.items, pixels, self._title(), colormap)
            write_image(paths[-1], sheet)
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
