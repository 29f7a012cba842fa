from __future__ import annotations

import errno
import json
import math
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import mmcam
from mmcam.errors import InputError, LabelError, MmcamError, OutputError
from mmcam.explanations import Explanations
from mmcam.media import ClipWriter, read_image, write_image
from mmcam.results.explanation import Explanation
from mmcam.results.files import (
    FACTS,
    MAPS,
    read_result,
    target_facts,
    unique_names,
    write_facts,
    write_maps,
)
from mmcam.types import Placement, Sample, Target
from tests import colour_net

HOSTILE = [
    "a/b\\c",
    "../../etc/passwd",
    "..",
    "",
    "x" * 300,
    "犬" * 300,
    "“quoted” 'and' \"so\"",
    "<b>bold</b> & co",
    "🐶",
    "naïve café",
    "line\nbreak\x00\x1b[31m",
    "c++",
    "con",
    "dog",
    "dog",
    "Dog",
    "dog-2",
    "\udce9 half a pair",
]

TARGET = {
    "id": str,
    "kind": str,
    "label": str,
    "position": (int, type(None)),
    "score": float,
    "log_prob": (float, type(None)),
    "probability": (float, type(None)),
    "method": str,
    "layer": str,
    "map": str,
    "peak": dict,
    "empty": bool,
    "overlay": (str, type(None)),
}
WHOLE = {
    "schema_version": int,
    "task": str,
    "model": dict,
    "input": dict,
    "targets": list,
    "versions": dict,
    "command": list,
}


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def write_clip(path: Path, frames: int = 20, fps: float = 12.5) -> Path:
    """A clip in which a red rectangle moves."""
    with ClipWriter(path, fps, 48, 64) as writer:
        for number in range(frames):
            pixels = np.full((48, 64, 3), 230, np.uint8)
            pixels[10:30, 2 * number : 2 * number + 20] = colour_net.COLOURS["red"]
            writer.write(pixels)
    return path


def explain_picture(path: str | Path, **options: Any) -> Explanations:
    return mmcam.explain(
        colour_net.model(clips=False), path, mmcam.Classes(["red", "blue"]), **options
    )


def explain_clip(path: str | Path) -> Explanations:
    return mmcam.explain(colour_net.model(clips=True), path, mmcam.Actions(["red moves"]))


CAM = torch.eye(2)
PLACEMENT = Placement(size=(15, 20), box=(5.0, 0.0, 15.0, 10.0))


def make_explanations(
    labels: list[str], cam: torch.Tensor = CAM, placement: Placement = PLACEMENT
) -> Explanations:
    """Explanations built by hand, one for each label."""
    explanations = [
        Explanation(
            target=Target.logit(0, label),
            cam=cam,
            score=1.0,
            probability=None,
            method="gradcam",
            layer="trunk",
            placement=placement,
        )
        for label in labels
    ]
    sample = Sample(pixels=np.zeros((*placement.size, 3), np.uint8), id="made/by hand")
    return Explanations.of_picture(
        colour_net.model(clips=False), sample, mmcam.Classes(), explanations
    )


def facts_in(folder: Path) -> dict[str, Any]:
    text = (folder / "explanation.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    return facts


def check_schema(facts: dict[str, Any], clip: bool) -> None:
    for table, values in [(WHOLE, facts), *((TARGET, target) for target in facts["targets"])]:
        for key, kind in table.items():
            assert isinstance(values[key], kind), key
    assert facts["schema_version"] == 1
    assert {"name", "weights", "weights_sha256", "default_layer"} <= facts["model"].keys()
    sides = {"path", "sha256", "width", "height"}
    assert facts["input"].keys() == (sides | {"frames", "fps"} if clip else sides)
    for target in facts["targets"]:
        assert target["peak"].keys() == {"x", "y", "frame"}
        assert isinstance(target["peak"]["frame"], int if clip else type(None))
        assert 0 <= target["peak"]["x"] <= facts["input"]["width"]
        assert 0 <= target["peak"]["y"] <= facts["input"]["height"]
        if target["probability"]:
            assert target["log_prob"] == pytest.approx(math.log(target["probability"]))


def test_a_pictures_facts_follow_the_schema(tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", picture())
    explanations = explain_picture(tmp_path / "photo.png", method=["gradcam", "gradient"])
    out = tmp_path / "new" / "out"
    written = explanations.save(out, command=["mmcam", "classify"])
    assert sorted(written) == sorted(out.iterdir())
    facts = facts_in(out)
    check_schema(facts, clip=False)
    assert facts["task"] == "classes"
    assert facts["command"] == ["mmcam", "classify"]
    assert facts["model"]["name"] == explanations.model["name"]
    assert torch.__version__.startswith(facts["versions"]["torch"])
    assert (facts["input"]["width"], facts["input"]["height"]) == (64, 48)
    assert len(facts["input"]["sha256"]) == 64
    for target, explanation in zip(facts["targets"], explanations, strict=True):
        assert (target["label"], target["method"]) == (explanation.label, explanation.method)
        assert target["score"] == explanation.score
        assert target["peak"] == explanation.peak()._asdict()
        assert (out / target["overlay"]).is_file()


def test_a_clips_facts_follow_the_schema_and_its_files_are_there(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    out = tmp_path / "out"
    written = explain_clip(path).save(out)
    assert sorted(written) == sorted(out.iterdir())
    facts = facts_in(out)
    check_schema(facts, clip=True)
    assert facts["task"] == "actions"
    assert (facts["input"]["frames"], facts["input"]["fps"]) == (20, 12.5)
    (target,) = facts["targets"]
    assert (target["kind"], target["clip"]) == ("action", "clip-red-moves.mp4")
    with av.open(str(out / target["clip"])) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 12.5
        assert sum(1 for _ in container.decode(stream)) == 20


def test_frames_and_panes_are_as_asked(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    explain_clip(pixels).save(tmp_path, panes=["overlay"], frames=True, colormap="viridis")
    frames = sorted((tmp_path / "frames-red-moves").iterdir())
    assert [file.name for file in frames] == [f"frame-{number:06d}.png" for number in range(3)]
    assert read_image(frames[0]).pixels.shape[1] == 64
    assert facts_in(tmp_path)["input"]["sha256"] is None


def test_raw_maps_and_their_metadata_give_back_every_pixel(tmp_path: Path) -> None:
    cam = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    placement = Placement(size=(25, 40), box=(5.0, 5.0, 25.0, 20.0))  # cells of 5 x 5 pixels
    explanations = make_explanations(["dog"], cam, placement)
    explanations.save(tmp_path)
    (target,) = facts_in(tmp_path)["targets"]
    with safe_open(tmp_path / "maps.safetensors", "pt") as file:
        raw, metadata = file.get_tensor(target["map"]), json.loads(file.metadata()[target["map"]])
    assert raw.dtype == torch.float32
    torch.testing.assert_close(raw, cam.float())
    assert metadata["size"] == [25, 40]
    a, b, c, d, e, f = metadata["affine"]
    heatmap = explanations[0].heatmap()
    for row in range(3):
        for column in range(4):
            x, y = a * column + b * row + c, d * column + e * row + f
            expected = max(float(raw[row, column] / raw.max()), 0)
            assert (x % 1, y % 1) == (0.5, 0.5)  # the middle of a pixel
            assert heatmap[int(y), int(x)] == pytest.approx(expected, abs=1e-6)


def test_metadata_of_a_clip_holds_its_windows(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    explain_clip(pixels).save(tmp_path, panes=["original"])
    with safe_open(tmp_path / "maps.safetensors", "pt") as file:
        shape = file.get_tensor("red-moves").shape
        metadata = json.loads(file.metadata()["red-moves"])
    assert metadata["windows"] == [[0, 16], [4, 20]]
    assert list(shape) == facts_in(tmp_path)["targets"][0]["grid"] == [30, 3, 4]
    assert metadata["affine"] == [16, 0, 8, 0, 16, 8]


def test_hostile_labels_become_safe_and_different_names_and_are_kept_as_they_are(
    tmp_path: Path,
) -> None:
    out = tmp_path / "deep" / "out"
    make_explanations(HOSTILE).save(out)
    targets = facts_in(out)["targets"]
    assert [target["label"] for target in targets] == HOSTILE
    overlays = {target["overlay"].casefold() for target in targets}
    assert len(overlays) == len({target["map"] for target in targets}) == len(HOSTILE)
    assert overlays < {file.name.casefold() for file in out.iterdir()}
    assert len(list(out.iterdir())) == len(HOSTILE) + 4
    assert [file.name for file in tmp_path.iterdir()] == ["deep"]
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["out"]
    for file in out.iterdir():
        assert len(file.name.encode()) < 200
        assert file.name.isprintable()
        assert not set(file.name) & set('/\\:*?"<>| \n')


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    make_explanations(["naïve 犬 🐶"]).save(tmp_path)
    assert '"naïve 犬 🐶"' in (tmp_path / "explanation.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a-2", "a-3"]),
        (["a-2", "a", "a"], ["a-2", "a", "a-3"]),
        (["a", "a-2", "A"], ["a", "a-2", "A-3"]),
    ],
)
def test_names_are_made_unique(names: list[str], expected: list[str]) -> None:
    assert unique_names(names) == expected


def test_methods_and_layers_are_in_the_names_where_there_are_several(tmp_path: Path) -> None:
    explain_picture(picture(), method=["gradcam", "gradcam++"], layers=["trunk.0", "trunk"]).save(
        tmp_path
    )
    assert {target["id"] for target in facts_in(tmp_path)["targets"]} == {
        f"{label}-{method}-{layer}"
        for label in ("red", "blue")
        for method in ("gradcam", "gradcam++")
        for layer in ("trunk", "trunk-0")
    }


def test_files_have_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        explain_picture(picture()).save(tmp_path / "out")
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "out").iterdir()}
    assert modes == dict.fromkeys(modes, 0o640)


def test_saving_twice_replaces_the_first_results(tmp_path: Path) -> None:
    make_explanations(["dog"], torch.ones(2, 2)).save(tmp_path)
    files = sorted(tmp_path.iterdir())
    make_explanations(["dog"], torch.full((2, 2), 7.0)).save(tmp_path)
    assert sorted(tmp_path.iterdir()) == files
    with safe_open(tmp_path / "maps.safetensors", "pt") as file:
        assert file.get_tensor("dog").tolist() == [[7, 7], [7, 7]]


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_maps_with_nan_or_infinite_values_are_not_read_or_saved(
    value: float, tmp_path: Path
) -> None:
    make_explanations(["dog"], torch.ones(2, 2)).save(tmp_path)
    file = tmp_path / "maps.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    broken = torch.tensor([[1.0, value], [0, 0]])
    save_file({"dog": broken}, file, metadata=metadata)
    with pytest.raises(InputError, match=r"cannot be read .*map 'dog' has NaN or infinite values"):
        mmcam.explanations.read(tmp_path)
    with pytest.raises(InputError, match=r"map of 'dog' \(.*\) has NaN or infinite values"):
        make_explanations(["dog"], broken).save(tmp_path / "again")


@pytest.mark.parametrize("key", ["input", "task", "model", "width"])
def test_a_result_without_an_entry_is_not_read(key: str, tmp_path: Path) -> None:
    make_explanations(["dog"], torch.ones(2, 2)).save(tmp_path)
    file = tmp_path / "explanation.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    del (facts["input"] if key == "width" else facts)[key]
    file.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(InputError, match=rf"cannot be read \(the entry '{key}' is missing\); run"):
        mmcam.explanations.read(tmp_path)


@pytest.mark.parametrize("inside", ["", "out"])
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"file.*cannot be created .*choose another folder"):
        explain_picture(picture()).save(tmp_path / "file" / inside)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_frames_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "frames-red-moves").write_text("mine")
    with pytest.raises(OutputError, match=r"frames-red-moves.*cannot be created"):
        explain_clip(np.zeros((2, 48, 64, 3), np.uint8)).save(tmp_path, frames=True)


@pytest.mark.parametrize(
    "name", ["explanation.json", "maps.safetensors", "overlay-dog.png", "index.html"]
)
@pytest.mark.parametrize("older", [False, True])
def test_a_full_disk_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, older: bool
) -> None:
    if older:
        (tmp_path / name).write_text("older")
    rename = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=rf"{name}.*No space left on device"):
        make_explanations(["dog"]).save(tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    assert (tmp_path / name).exists() == older
    assert not older or (tmp_path / name).read_text() == "older"


def test_a_disk_that_fills_while_writing_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OutputError, match=r"maps.safetensors.*No space left.*free some space"):
        make_explanations(["dog"]).save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["overlay-dog.png"]


def test_a_clip_on_a_full_disk_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    explanations = explain_clip(np.zeros((2, 48, 64, 3), np.uint8))
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        explanations.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_clip_that_is_gone_when_it_is_drawn_is_an_error(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=2)
    explanations = explain_clip(path)
    path.unlink()
    with pytest.raises(MmcamError, match="no such file"):
        explanations.save(tmp_path / "out")


@pytest.mark.parametrize("look", [{"colormap": "infernal"}, {"panes": ["pain"]}, {"panes": []}])
def test_wrong_drawing_options_are_an_error_before_anything_is_written(
    tmp_path: Path, look: dict[str, Any]
) -> None:
    with pytest.raises(MmcamError):
        make_explanations(["dog"]).save(tmp_path / "out", **look)
    assert not list(tmp_path.iterdir())


def test_explanations_are_found_by_label_and_by_place() -> None:
    explanations = explain_picture(picture(), method=["gradcam", "gradient"])
    assert len(explanations) == 4
    assert explanations[-1] is list(explanations)[3]
    assert explanations.index(explanations[2]) == 2
    assert [e.method for e in explanations[:2]] == ["gradcam", "gradient"]
    assert explanations.select(label="blue", method="gradient") == [explanations[3]]
    assert len(explanations.select(layer="trunk")) == 2
    with pytest.raises(LabelError, match=r"'red' has 2 maps \(gradcam at trunk, gradient at"):
        explanations["red"]
    with pytest.raises(LabelError, match=r"label='bleu'.*labels here: blue"):
        explanations["bleu"]
    with pytest.raises(LabelError, match=r"method='rise'.*labels here: blue, red"):
        explanations.select(method="rise")


@pytest.mark.parametrize("extent", [(), ((-0.25, 0.75), (0.1, 1.2))])
def test_a_map_whose_cells_are_shifted_is_read_back_as_it_was(
    tmp_path: Path, extent: tuple[tuple[float, float], ...]
) -> None:
    (explanation,) = make_explanations(["cat"])
    placement = replace(explanation.placement, extent=extent)
    shifted = replace(explanation, placement=placement, cam=torch.rand(4, 5))
    write_maps(tmp_path / MAPS, {"cat": shifted})
    write_facts(tmp_path / FACTS, {"schema_version": 1, "targets": [target_facts("cat", shifted)]})
    assert facts_in(tmp_path)["targets"][0]["place"] == ("traced" if extent else "even")
    ((read,),) = (read_result(tmp_path).explanations,)
    assert read.placement == placement
    np.testing.assert_array_equal(read.heatmap(), shifted.heatmap())
    left, top, right, bottom = placement.box
    rows, columns = extent or ((0, 1), (0, 1))
    with safe_open(tmp_path / MAPS, "pt") as file:
        a, _, c, _, e, f = json.loads(file.metadata()["cat"])["affine"]
    # The outer edges of the first and of the last cell.
    edges = [c - a / 2, c + 4.5 * a, f - e / 2, f + 3.5 * e]
    expected = [left + share * (right - left) for share in columns]
    expected += [top + share * (bottom - top) for share in rows]
    assert edges == pytest.approx(expected)
