from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
from typer.testing import CliRunner

from mmcam import cli, demo
from mmcam.cli.console import console
from mmcam.errors import MmcamError
from mmcam.media import open_clip, write_image
from mmcam.methods import METHODS
from mmcam.models import FAMILIES
from tests import colour_net

FACTORIES = """
import colour_net

def pictures():
    return colour_net.model(clips=False)

def clips():
    return colour_net.model(clips=True)

def odd_labels():
    model = colour_net.model(clips=False)
    model.labels = ["[red]x[/red]", ":dog: \\\\[b]", "犬"]
    return model
"""
PICTURES, CLIPS = "colour_models:pictures", "colour_models:clips"


class Result(NamedTuple):
    code: Any
    out: str
    err: str


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with models, a picture and a clip, and a wide console for the tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(console, "width", 250)
    # In the working folder, so that child processes can import it too.
    shutil.copy(colour_net.__file__, "colour_net.py")
    Path("colour_models.py").write_text(FACTORIES, encoding="utf-8")
    write_image("photo.png", colour_net.scene({"red": (0.3, 0.5)})[::2, ::2])
    Path("clip").mkdir()
    for number in range(3):
        places = {"red": (0.3 + 0.1 * number, 0.5)}
        write_image(Path("clip") / f"{number}.png", colour_net.scene(places)[::4, ::4])


@pytest.fixture
def mmcam_with(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line as the console script does."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["mmcam", *arguments])
        with pytest.raises(SystemExit) as result:
            cli.main()
        return Result(result.value.code, *capsys.readouterr())

    return run


def facts(folder: str = "mmcam-out") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / "explanation.json").read_text("utf-8"))
    return content


def names(folder: str) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in Path(folder).rglob("*.json"))


def test_a_picture_is_classified_reported_and_saved(mmcam_with: Any) -> None:
    result = mmcam_with("classify", "photo.png", "--model", PICTURES, "--label", "red")
    assert (result.code, result.err) == (0, "")
    (row,) = [line for line in result.out.splitlines() if "gradcam" in line]
    assert re.search(r"red .* \d+\.\d{3} .* 0\.\d{4} .* gradcam .* trunk .* x \d+, y \d+", row)
    assert "written to mmcam-out" in result.out
    (target,) = facts()["targets"]
    assert target["label"] == "red"
    assert facts()["command"] == sys.argv


def test_options_that_repeat_are_all_taken_in_order(mmcam_with: Any) -> None:
    result = mmcam_with(
        *("classify", "photo.png", "-m", PICTURES, "-l", "blue", "-l", "RED", "--out", "new/out"),
        *("--method", "hirescam", "--method", "gradcam", "--layer", "trunk.2", "--layer", "*.0"),
    )
    assert result.code == 0
    assert [(t["label"], t["method"], t["layer"]) for t in facts("new/out")["targets"]] == [
        (label, method, layer)
        for label in ("blue", "red")
        for method in ("hirescam", "gradcam")
        for layer in ("trunk.0", "trunk.2")
    ]


def test_labels_may_be_numbers_and_are_the_top_ones_where_none_is_named(mmcam_with: Any) -> None:
    assert mmcam_with("classify", "photo.png", "-m", PICTURES, "-l", "2").code == 0
    assert [target["label"] for target in facts()["targets"]] == ["blue"]
    assert mmcam_with("classify", "photo.png", "-m", PICTURES, "--top", "2").code == 0
    labels = [target["label"] for target in facts()["targets"]]
    assert len(labels) == 2
    assert labels[0] == "red"


def test_flags_are_passed_on(mmcam_with: Any) -> None:
    result = mmcam_with(
        *("classify", "photo.png", "-m", PICTURES, "--guided", "--counterfactual"),
        *("--colormap", "jet", "--device", "cpu"),
    )
    assert result.code == 0
    assert [(t["method"], t["counterfactual"]) for t in facts()["targets"]] == [
        ("gradcam", True),
        ("guided-gradcam", True),
    ]


def test_label_files_name_the_classes(mmcam_with: Any) -> None:
    Path("labels.txt").write_text("rot\ngrün\nblau\n", encoding="utf-8")
    result = mmcam_with("classify", "photo.png", "-m", PICTURES, "--labels-file", "labels.txt",
                       "-l", "GRÜN")  # fmt: skip
    assert result.code == 0
    assert facts()["targets"][0]["label"] == "grün"


def test_pictures_of_one_name_do_not_overwrite_each_other(mmcam_with: Any) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        write_image(Path(folder) / "photo.png", colour_net.scene({"red": (0.5, 0.5)})[::4, ::4])
    Path("...png").write_bytes(Path("photo.png").read_bytes())
    pictures = ["a/photo.png", "b/photo.png", "photo.png", "...png"]
    result = mmcam_with("classify", *pictures, "-m", PICTURES, "--out", "out")
    assert result.code == 0
    folders = ["photo", "photo-2", "photo-3", "picture"]
    assert names("out") == sorted(f"{folder}/explanation.json" for folder in folders)
    assert [facts(f"out/{folder}")["input"]["path"] for folder in folders] == pictures
    assert all(f"written to {Path('out') / folder}\n" in result.out for folder in folders)


def test_a_clip_is_explained_reported_and_saved(mmcam_with: Any) -> None:
    result = mmcam_with(
        *("action", "clip", "-m", CLIPS, "-l", "red moves", "--pane", "overlay"),
        *("--frames", "--batch", "2"),
    )
    assert (result.code, result.err) == (0, "")
    assert re.search(r"red moves .* x \d+, y \d+, frame \d", result.out)
    assert facts()["input"]["frames"] == 3
    assert len(list(Path("mmcam-out/frames-red-moves").iterdir())) == 3
    with open_clip("mmcam-out/clip-red-moves.mp4") as written:
        assert (written.frames, written.width) == (3, 80)


def test_panes_stand_side_by_side_in_the_order_asked_for(mmcam_with: Any) -> None:
    arguments = ["action", "clip", "-m", CLIPS, "-l", "red moves"]
    assert mmcam_with(*arguments, "--pane", "overlay", "--pane", "original").code == 0
    with open_clip("mmcam-out/clip-red-moves.mp4") as written:
        two = written.width
    assert mmcam_with(*arguments).code == 0
    with open_clip("mmcam-out/clip-red-moves.mp4") as written:
        assert 2 * 80 < two < 3 * 80 < written.width


def test_markup_and_other_signs_in_texts_are_shown_as_they_are(mmcam_with: Any) -> None:
    picture = "[bold]:cat:[/bold].png"
    Path("[bold]:cat:[").mkdir()
    write_image(picture, colour_net.scene({"red": (0.5, 0.5)})[::4, ::4])
    result = mmcam_with(
        *("classify", picture, "-m", "colour_models:odd_labels", "--out", "[i]out", "--top", "3")
    )
    assert result.code == 0
    for text in ("[red]x[/red]", ":dog: \\[b]", "犬", picture, "written to [i]out"):
        assert text in result.out
    result = mmcam_with("classify", picture, "-m", PICTURES, "-l", "[red]:dog:[/red]")
    assert "has no label '[red]:dog:[/red]'" in result.err


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("classify", ["none.png"], r"InputError: none\.png: there is no such file"),
        ("classify", ["clip"], r"InputError: 'clip' is a clip and .* choose a video model"),
        (
            "classify",
            ["photo.png", "--label", "rde"],
            r"LabelError: .* no label 'rde'; nearest: red",
        ),
        ("classify", ["photo.png", "--top", "9"], r"LabelError: top=9"),
        (
            "classify",
            ["photo.png", "--method", "x-ray"],
            r"MethodError: there is no method 'x-ray'",
        ),
        (
            "classify",
            ["photo.png", "--layer", "trnk"],
            r"LayerError: .* no layer 'trnk'; nearest: trunk",
        ),
        (
            "classify",
            ["photo.png", "--colormap", "hot dog"],
            r"InputError: there is no colour map 'hot dog'",
        ),
        (
            "classify",
            ["photo.png", "--device", "moon"],
            r"ModelError: device 'moon' cannot be used",
        ),
        ("classify", ["photo.png", "--weights", "w.pt"], r"WeightsError: .*w\.pt"),
        (
            "classify",
            ["photo.png", "--labels-file", "l.txt"],
            r"ModelError: labels file 'l\.txt' cannot",
        ),
        (
            "classify",
            ["photo.png", "--out", "photo.png"],
            r"OutputError: folder 'photo\.png' cannot be created",
        ),
        ("classify", ["photo.png", "--model", "nope"], r"ModelError: there is no model 'nope'"),
        (
            "classify",
            ["photo.png", "--model", "no.such:one"],
            r"ModelError: model 'no\.such:one' cannot be",
        ),
        (
            "action",
            ["clip"],
            r"ModelError: .* is an image model and actions need a clip",
        ),
        ("action", ["none.mp4", "--model", CLIPS], r"InputError: none\.mp4: there is no such file"),
        (
            "action",
            ["clip", "--model", CLIPS, "--batch", "0"],
            r"InputError: batch=0: it must be 1 or more",
        ),
    ],
)
def test_errors_are_one_line_and_exit_with_2(
    mmcam_with: Any, command: str, arguments: list[str], message: str
) -> None:
    result = mmcam_with(command, "--model", PICTURES, *arguments)
    assert result.code == 2
    assert result.out == ""
    assert re.fullmatch(rf"mmcam: {message}.*\n", result.err)
    assert not Path("mmcam-out").exists()


def test_errors_stay_on_one_line_whatever_they_say(
    mmcam_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise MmcamError("a long tale, " * 40 + "\n\n  told [red]here[/red]\r\n")

    monkeypatch.setattr("mmcam.load", fail)
    result = mmcam_with("classify", "photo.png")
    assert result.code == 2
    assert result.err.startswith("mmcam: MmcamError: a long tale, a long tale")
    assert result.err.endswith("a long tale, told [red]here[/red]\n")
    assert result.err.count("\n") == 1


def test_a_wrong_look_is_told_before_the_model_is_loaded(
    mmcam_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> NoReturn:
        raise AssertionError("loaded")

    monkeypatch.setattr("mmcam.load", load)
    for arguments in (
        ["classify", "photo.png", "--colormap", "infernal"],
        ["action", "clip", "--colormap", "infernal"],
        ["action", "clip", "--pane", "pain"],
    ):
        assert mmcam_with(*arguments).code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify"], "Missing argument"),
        (["classify", "photo.png", "--top", "many"], "--top"),
        (["classify", "photo.png", "--lable", "dog"], "--lable"),
        (["clasify", "photo.png"], "clasify"),
        (["list", "layers"], "--model"),
    ],
)
def test_wrong_usage_exits_with_2(mmcam_with: Any, arguments: list[str], message: str) -> None:
    result = mmcam_with(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert message in result.err
    assert "Traceback" not in result.err


def test_an_interrupt_exits_with_130_and_no_traceback(
    mmcam_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmcam.load", interrupt)
    result = mmcam_with("classify", "photo.png")
    assert (result.code, result.out, result.err.strip()) == (130, "", "")
    monkeypatch.setattr(cli, "app", interrupt)  # before or after a command
    result = mmcam_with("list", "methods")
    assert (result.code, result.err) == (130, "")


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr("mmcam.load", fail)
    monkeypatch.setattr(sys, "argv", ["mmcam", "classify", "photo.png"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_models_and_methods_are_listed(mmcam_with: Any) -> None:
    result = mmcam_with("list", "methods")
    assert result.code == 0
    assert all(re.search(rf"│ {re.escape(name)} ", result.out) for name in METHODS)
    result = mmcam_with("list", "models", "--match", "x3d_")
    assert result.code == 0
    assert all(row.example in result.out for row in FAMILIES.values())
    listed = result.out.split("┘")[-1].split()
    assert "pytorchvideo:x3d_xs" in listed
    assert all("x3d_" in name for name in listed)


@pytest.mark.parametrize(
    ("model", "expected"), [(PICTURES, ["3", "18 x 24"]), (CLIPS, ["6", "15 x 18 x 24"])]
)
def test_layers_of_a_model_are_listed(mmcam_with: Any, model: str, expected: list[str]) -> None:
    result = mmcam_with("list", "layers", "--model", model)
    assert result.code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.out.splitlines()]
    content = {cells[0]: cells[1:] for cells in rows if cells}
    assert content["trunk (default)"] == expected
    assert {"trunk.0", "trunk.1", "trunk.2"} < content.keys()
    assert "head" not in content


def test_the_module_runs_and_finds_models_in_the_working_folder() -> None:
    environment = {**os.environ, "COLUMNS": "120", "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(
        [sys.executable, "-m", "mmcam", "classify", "caf\udce9.png", "--model", PICTURES],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    # A name that the terminal cannot show is no reason for a traceback.
    assert result.returncode == 2
    assert result.stderr.startswith(r"mmcam: InputError: caf\udce9.png: there is no such file")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", [[], ["classify"], ["caption"], ["action"], ["demo"], ["list"], ["list", "layers"]]
)
def test_help_is_plain_and_says_what_there_is(command: list[str]) -> None:
    result = CliRunner().invoke(cli.app, [*command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    first, *lines = result.output.splitlines()
    assert first.count("...") <= 1
    assert not any(line.endswith("...") for line in lines)  # no summary is cut off
    if command in (["classify"], ["action"]):
        for option in ("--label NAME", "--method NAME", "--layer NAME", "--model", "--out"):
            assert option in result.output


def test_the_demo_prints_what_it_wrote(mmcam_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "  [red]moves[/red] :dog: " + "x" * 300
    monkeypatch.setattr(demo, "run", lambda folder: iter([line, f"written to {folder}"]))
    result = mmcam_with("demo", "--out", "here")
    assert (result.code, result.out) == (0, f"{line}\nwritten to here\n")


def test_file_names_that_are_no_text_are_explained_too(mmcam_with: Any) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        Path(name).write_bytes(Path("photo.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    assert mmcam_with("classify", name, "-m", PICTURES).code == 0
    assert facts()["input"]["path"] == name
