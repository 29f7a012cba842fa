"""Galleries, which are made from result folders alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mmcam.cli import app
from mmcam.errors import InputError
from mmcam.page import gallery, read_folder
from mmcam.page.html import read_json
from tests.page.results import HOSTILE, make_explanations, pixels


@pytest.fixture
def copied(results: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(results, tmp_path / "copied"))


@pytest.mark.parametrize("name", ["a", "b", "c", "deep/d"])
def test_a_folder_gives_back_what_its_page_holds(results: Path, name: str) -> None:
    folder = results / name
    own = read_json((folder / "index.html").read_text(encoding="utf-8"), "record-0")
    record = json.loads(json.dumps(read_folder(folder, folder / "other.html")))
    assert record["targets"] == own["targets"]
    assert {key: record[key] for key in record if key != "seen"} == {
        key: own[key] for key in own if key != "seen"
    }
    assert record["seen"].keys() == own["seen"].keys()
    assert bool(record["seen"]["picture"]) == (name != "deep/d")


def test_a_gallery_holds_all_results_under_its_folders_once(results: Path) -> None:
    text = gallery([results, results / "a"], results / "gallery.html")
    head = read_json(text, "head")
    files = [read_json(text, f"record-{i}")["task"] for i in range(4)]
    assert files == ["classes", "caption", "answers", "actions"]
    assert len(head["cards"]) == sum(
        len(read_json(text, f"record-{i}")["targets"]) for i in range(4)
    )
    for card in head["cards"]:
        target = read_json(text, f"record-{card['record']}")["targets"][card["target"]]
        for key in ("label", "score", "probability", "method", "layer", "empty"):
            assert card[key] == target[key]


def test_clips_are_named_as_seen_from_the_gallery(results: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a b#c?" / "100%"
    shutil.copytree(results / "deep" / "d", odd)
    for beside, start in [
        (tmp_path / "gallery.html", "a%20b%23c%3F/100%25/"),
        (odd / "gallery.html", ""),
        (tmp_path / "other" / "gallery.html", "../a%20b%23c%3F/100%25/"),
    ]:
        record = read_folder(odd, beside)
        assert record["targets"][0]["clip"] == f"{start}clip-red-moves.mp4"


def test_a_folder_without_a_page_shows_what_was_saved(copied: Path) -> None:
    for name in ("a", "deep/d"):
        (copied / name / "index.html").unlink()
        record = read_folder(copied / name, copied / "gallery.html")
        assert record["seen"] == {"picture": None, "frames": [], "player": None}
        for target in record["targets"]:
            assert target["drawn"].startswith("data:image/jpeg;base64,")
        assert len({target["drawn"] for target in record["targets"]}) > 1


def spoil(folder: Path, **change: Any) -> None:
    path = folder / "explanation.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**facts, **change}), encoding="utf-8")


def test_a_result_that_cannot_be_read_is_an_error(copied: Path) -> None:
    beside = copied / "gallery.html"
    spoil(copied / "a", schema_version=99)
    with pytest.raises(InputError, match=r"schema version is 99.*run the command"):
        read_folder(copied / "a", beside)
    (copied / "b" / "maps.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(InputError, match=r"maps.safetensors"):
        read_folder(copied / "b", beside)
    spoil(copied / "c", targets=[{"label": "red"}])
    with pytest.raises(InputError, match=r"'.*c' cannot be read \(the entry 'map' is missing\)"):
        read_folder(copied / "c", beside)
    (copied / "deep/d/explanation.json").write_text("{")
    with pytest.raises(InputError, match="JSONDecodeError"):
        read_folder(copied / "deep/d", beside)
    (copied / "c" / "explanation.json").write_text("[1]")
    with pytest.raises(InputError, match="TypeError"):
        read_folder(copied / "c", beside)


def test_a_page_that_holds_something_else_is_an_error(copied: Path) -> None:
    page = copied / "a" / "index.html"
    own = page.read_text(encoding="utf-8")
    page.write_text("<p>mine</p>")
    with pytest.raises(InputError, match="no block record-0"):
        read_folder(copied / "a", copied / "gallery.html")
    picture = read_json(own, "record-0")["seen"]["picture"]
    page.write_text(own.replace(picture, "https://example.org/x.jpg"))
    with pytest.raises(InputError, match="cannot be read"):
        read_folder(copied / "a", copied / "gallery.html")


def test_a_changed_file_cannot_break_out_of_the_gallery(copied: Path) -> None:
    text = HOSTILE[0]
    path = copied / "a" / "explanation.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["targets"][0]["label"] = facts["model"]["name"] = facts["task"] = text
    facts["input"]["path"] = text
    path.write_text(json.dumps(facts), encoding="utf-8")
    page = gallery([copied], copied / "gallery.html")
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("<script") == 4 + 2


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_of_no_results_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"'.*(empty|missing)' (holds no result|is not a folder)"):
        gallery([tmp_path / name], tmp_path / "gallery.html")


def test_the_command_writes_the_gallery(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results)
    out = tmp_path / "new" / "all.html"
    result = CliRunner().invoke(
        app, ["page", "a", "b", "deep", "--colormap", "jet", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "all.html" in result.output
    text = out.read_text(encoding="utf-8")
    assert read_json(text, "head")["colormap"] == "jet"
    assert read_json(text, "record-2")["targets"][0]["clip"].endswith("deep/d/clip-red-moves.mp4")


def test_a_wrong_folder_is_an_error_of_the_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["page", str(tmp_path), "--out", str(tmp_path / "x.html")])
    assert isinstance(result.exception, InputError)
    assert not (tmp_path / "x.html").exists()


def test_an_out_that_cannot_be_written_is_an_error(results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    out = str(tmp_path / "file" / "gallery.html")
    result = CliRunner().invoke(app, ["page", str(results / "b"), "--out", out])
    assert type(result.exception).__name__ == "OutputError"


def test_a_gallery_of_many_reads_no_picture_twice(tmp_path: Path) -> None:
    make_explanations(["dog", "cat", "hen"], pixels()).save(tmp_path / "one")
    assert gallery([tmp_path], tmp_path / "gallery.html").count("data:image/jpeg") == 1
