"""Overlays and plots: what `save` writes, in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot

import mmcam
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.errors import InputError, MissingExtra
from mmcam.explanations import Explanations
from mmcam.media import ClipWriter, read_image, write_image
from mmcam.results.explanation import Explanation
from tests import colour_net
from tests.page import results


@pytest.fixture(autouse=True)
def figures() -> Iterator[None]:
    """No test opens a window or leaves a figure behind."""
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


def cropped(path: Path | np.ndarray, **options: Any) -> Explanations:
    """Two classes of a picture, of whose sides the model's crop cuts off a part."""
    module = colour_net.ColourNet(clips=False)
    recipe = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), resize=96, crop=(96, 96))
    model = mmcam.wrap(module, recipe, layer="trunk", labels=list(colour_net.COLOURS))
    return mmcam.explain(model, path, mmcam.Classes(["red", "blue"]), **options)


def picture_file(folder: Path) -> Path:
    path = folder / "photo.png"
    write_image(path, colour_net.scene({"red": (0.3, 0.4), "blue": (0.7, 0.6)}))
    return path


def clip_file(folder: Path) -> Path:
    path = folder / "clip.mp4"
    with ClipWriter(path, 12.5, colour_net.HEIGHT, colour_net.WIDTH) as writer:
        for pixels in colour_net.clip():
            writer.write(pixels)
    return path


def explained_clip(source: Path | np.ndarray, **options: Any) -> Explanations:
    model = colour_net.model(clips=True)
    return mmcam.explain(model, source, mmcam.Actions(["red moves", "blue moves"]), **options)


def array(explanation: Explanation, **options: Any) -> np.ndarray:
    return np.asarray(explanation.overlay(**options))


@pytest.mark.parametrize("colormap", ["inferno", "jet"])
def test_overlays_are_the_pictures_that_are_saved_and_drawn_again_when_read(
    tmp_path: Path, colormap: str
) -> None:
    methods = ["gradcam", "guided", "guided-gradcam"]
    maps = cropped(picture_file(tmp_path), method=methods)
    maps.save(tmp_path / "out", colormap=colormap)
    restored = mmcam.read(tmp_path / "out")
    files = [
        f"overlay-{label}-{method}-{layer}.png"
        for label in ("red", "blue")
        for method, layer in zip(methods, ("trunk", "pixels", "trunk"), strict=True)
    ]
    for file, explanation, read in zip(files, maps, restored, strict=True):
        saved = read_image(tmp_path / "out" / file).pixels
        np.testing.assert_array_equal(array(explanation, colormap=colormap), saved)
        np.testing.assert_array_equal(array(read, colormap=colormap), saved)


@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_overlays_of_a_clip_are_the_frames_that_are_saved(tmp_path: Path, method: str) -> None:
    path = clip_file(tmp_path)
    maps = explained_clip(path, method=method)
    maps.save(tmp_path / "out", panes=["overlay"], frames=True)
    restored = mmcam.read(tmp_path / "out")
    for frame in (0, 9, colour_net.FRAMES - 1):
        for explanation in (maps["red moves"], restored["red moves"]):
            file = tmp_path / "out" / "frames-red-moves" / f"frame-{frame:06d}.png"
            saved = read_image(file).pixels[-colour_net.HEIGHT :]  # below the label
            np.testing.assert_array_equal(array(explanation, frame=frame), saved)


def test_the_overlay_of_a_clip_shows_the_frame_of_its_peak() -> None:
    maps = explained_clip(colour_net.clip())
    peaks = [explanation.peak().frame for explanation in maps]
    assert peaks[0] != peaks[1]
    for explanation, peak in zip(maps, peaks, strict=True):
        np.testing.assert_array_equal(array(explanation), array(explanation, frame=peak))
        assert (array(explanation) != array(explanation, frame=(peak or 0) + 8)).any()


@given(
    seeds=st.lists(st.integers(0, 99), min_size=2, max_size=2, unique=True),
    left=st.integers(0, 20),
    top=st.integers(0, 20),
)
def test_margins_that_the_model_does_not_see_look_the_same_under_every_map(
    seeds: list[int], left: int, top: int
) -> None:
    photo = results.pixels()
    box = (float(left), float(top), 40.0, 44.0)
    maps = results.make_explanations(["dog"], photo, box=box)
    first, second = (
        array(
            Explanations(
                (replace(maps[0], cam=torch.rand(4, 4, generator=torch.manual_seed(seed)) + 0.1),),
                maps.task,
                maps.model,
                maps.source,
            )[0]
        )
        for seed in seeds
    )
    outside = np.ones(photo.shape[:2], bool)
    outside[top:44, left:40] = False
    np.testing.assert_array_equal(first[outside], second[outside])
    assert (first[outside].std(1) == 0).all()  # grey
    assert (first[~outside] != second[~outside]).any()


def test_an_opacity_of_zero_leaves_the_picture_as_it_is() -> None:
    photo = results.pixels()
    (explanation,) = results.make_explanations(["dog"], photo)
    np.testing.assert_array_equal(array(explanation, opacity=0), photo)
    faint, strong = (
        np.abs(array(explanation, opacity=opacity).astype(int) - photo).sum()
        for opacity in (0.2, 0.9)
    )
    assert 0 < faint < strong


def test_a_map_without_its_picture_is_not_drawn() -> None:
    (explanation,) = results.make_explanations(["dog"], results.pixels())
    alone = replace(explanation, source=None)
    for draw in (alone.overlay, alone.plot, alone.show):
        with pytest.raises(InputError, match="map of 'dog' does not know its picture or clip"):
            draw()


def test_a_picture_has_no_frames_and_a_clip_only_its_own() -> None:
    (explanation,) = results.make_explanations(["dog"], results.pixels())
    with pytest.raises(InputError, match=r"frame=3 of 'dog': .*leave frame out"):
        explanation.overlay(frame=3)
    moving = explained_clip(colour_net.clip())
    for frame in (-1, colour_net.FRAMES):
        with pytest.raises(InputError, match=f"there is no frame {frame}; its frames are 0 to 31"):
            moving.plot(frame=frame)


def test_a_picture_or_clip_that_is_missing_or_changed_is_not_drawn(tmp_path: Path) -> None:
    for path, maps in [
        (picture_file(tmp_path), cropped(tmp_path / "photo.png")),
        (clip_file(tmp_path), explained_clip(tmp_path / "clip.mp4")),
    ]:
        maps.save(tmp_path / "out")
        restored = mmcam.read(tmp_path / "out")
        restored[0].overlay()
        content = path.read_bytes()
        path.write_bytes(content + b"\0")
        with pytest.raises(InputError, match="has changed since it was explained"):
            restored[0].overlay()
        path.unlink()
        with pytest.raises(InputError, match="is missing, so the maps cannot be drawn"):
            restored.plot()
        assert restored[0].heatmap().shape[-2:] == (colour_net.HEIGHT, colour_net.WIDTH)


def shown(ax: Any) -> np.ndarray:
    """The picture on some axes."""
    (image,) = ax.get_images()
    pixels: np.ndarray = image.get_array()
    return pixels


def test_a_plot_shows_the_overlay_in_pixels_of_the_original() -> None:
    maps = results.classes(method="gradcam")
    red = maps["red"]
    ax = red.plot(colormap="viridis")
    np.testing.assert_array_equal(shown(ax), array(red, colormap="viridis"))
    height, width = red.placement.size
    assert ax.get_images()[0].get_extent() == [0, width, height, 0]
    assert ax.get_title() == f"red\nscore {red.score:.2f}  p {red.probability:.3f}"
    assert "no positive evidence" in maps["green"].plot().get_title()


def test_a_plot_is_drawn_on_given_axes() -> None:
    maps = results.classes(method="gradcam")
    _, axes = pyplot.subplots(1, 2)
    assert maps["blue"].plot(axes[1]) is axes[1]
    assert pyplot.get_fignums() == [1]
    assert not axes[0].get_images()
    np.testing.assert_array_equal(shown(axes[1]), array(maps["blue"]))


def test_all_maps_are_plotted_after_the_original() -> None:
    maps = results.classes(method=["gradcam", "guided"])
    axes = maps.plot(columns=3)
    original, *others = axes[0].figure.axes
    assert others == axes
    np.testing.assert_array_equal(shown(original), maps.source.read())
    for ax, explanation in zip(axes, maps, strict=True):
        np.testing.assert_array_equal(shown(ax), array(explanation))
        assert explanation.label in ax.get_title()
        assert f"{explanation.method} at {explanation.layer}" in ax.get_title()
    assert {ax.get_subplotspec().get_gridspec().ncols for ax in axes} == {3}


def test_the_maps_of_a_clip_are_plotted_at_their_peaks_or_at_one_frame() -> None:
    maps = explained_clip(colour_net.clip())
    axes = maps.plot()
    assert axes == axes[0].figure.axes
    for ax, explanation in zip(axes, maps, strict=True):
        assert ax.get_title().endswith(f"frame {explanation.peak().frame}")
        np.testing.assert_array_equal(shown(ax), array(explanation))
    for ax, explanation in zip(maps.plot(frame=5), maps, strict=True):
        assert ax.get_title().endswith("frame 5")
        np.testing.assert_array_equal(shown(ax), array(explanation, frame=5))


def test_a_plot_of_a_caption_has_the_caption_above_its_words() -> None:
    maps = results.twelve_words(results.pixels())
    figure = maps.plot()[0].figure
    assert figure.get_suptitle() == "photo.jpg: a brown dog and a grey cat sit on a red sofa"
    assert figure.axes[1].get_title() == "whole caption\nlog p -1.50"
    assert maps[0].plot().get_title().startswith("a brown dog and a grey cat")


@pytest.mark.parametrize("label", ["$a$", "$\\frac{$", "line\nbreak\x00", "", "x" * 500, "\udce9"])
def test_labels_of_any_text_are_plotted(label: str) -> None:
    maps = results.make_explanations([label], results.pixels(), file=f"{label}.png")
    axes = maps.plot()
    axes[0].figure.canvas.draw()
    title = axes[0].get_title()
    assert title.count("\n") <= 2
    assert max(map(len, title.split("\n"))) <= 60


def test_nothing_to_plot_is_an_error() -> None:
    maps = results.make_explanations([], results.pixels())
    with pytest.raises(InputError, match="no maps to plot"):
        maps.plot()
    with pytest.raises(InputError, match="columns"):
        results.make_explanations(["dog"], results.pixels()).plot(columns=0)


def test_show_plots_and_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    open_figures: list[list[Any]] = []
    monkeypatch.setattr(
        pyplot,
        "show",
        lambda: open_figures.append(
            [len(f.axes) for f in map(pyplot.figure, pyplot.get_fignums())]
        ),
    )
    maps = results.classes(method="gradcam")
    maps["red"].show()
    maps.show()
    assert open_figures == [[1], [1, 4]]


def test_plots_without_matplotlib_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.delattr(matplotlib, "pyplot")
    maps = results.make_explanations(["dog"], results.pixels())
    for draw in (maps.plot, maps.show, maps[0].plot, maps[0].show):
        with pytest.raises(MissingExtra, match=r"pip install 'mmcam\[notebook\]'"):
            draw()
    assert maps[0].overlay().size == (60, 48)
