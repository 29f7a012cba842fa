"""The command line: parse, call, print."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mmcam.errors import MmcamError
from mmcam.options import (
    Colormap,
    Counterfactual,
    Device,
    Guided,
    Labels,
    LabelsFile,
    Layers,
    Methods,
    Model,
    Out,
    Top,
    Weights,
)
from mmcam.page.command import page
from mmcam.page.record import notes
from mmcam.run.command import register

app = typer.Typer(
    help="Which pixels, in which frames, made the model say this.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
listing = typer.Typer(help="What there is: models, methods, layers.", no_args_is_help=True)
app.add_typer(listing, name="list")
console = Console(markup=False, emoji=False, highlight=False)  # texts of users are shown as is


@app.command()
def classify(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="pictures")],
    model: Model = "torchvision:resnet50",
    weights: Weights = None,
    labels_file: LabelsFile = None,
    label: Labels = None,
    top: Top = 1,
    method: Methods = ["gradcam"],  # noqa: B006 - typer copies it
    layer: Layers = None,
    guided: Guided = False,
    counterfactual: Counterfactual = False,
    device: Device = "cpu",
    colormap: Colormap = "inferno",
    out: Out = Path("mmcam-out"),
) -> None:
    """Explain what an image classifier sees in each picture."""
    from mmcam import Classes, load
    from mmcam.draw import check_look

    check_look(colormap)
    adapter = load(model, weights=weights, labels=labels_file, device=device)
    task = Classes(labels=label or None, top=top)
    options = Options(method, layer or None, guided, counterfactual)
    explain_pictures(adapter, images, task, options, colormap, out)


@app.command()
def action(
    clip: Annotated[
        str, typer.Argument(metavar="CLIP", help="a video file, a GIF, or a folder of frames")
    ],
    model: Model = "pytorchvideo:x3d_xs",
    weights: Weights = None,
    labels_file: LabelsFile = None,
    label: Labels = None,
    top: Top = 1,
    method: Methods = ["gradcam"],  # noqa: B006 - typer copies it
    layer: Layers = None,
    guided: Guided = False,
    counterfactual: Counterfactual = False,
    device: Device = "cpu",
    colormap: Colormap = "inferno",
    pane: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="what the clip shows side by side; repeat for more"),
    ] = ["original", "overlay", "explanation"],  # noqa: B006 - typer copies it
    frames: Annotated[bool, typer.Option("--frames", help="write every frame as PNG too")] = False,
    batch: Annotated[int, typer.Option(help="windows of the clip that run at once")] = 1,
    out: Out = Path("mmcam-out"),
) -> None:
    """Explain which action a video model sees, where and when.

    The clip may be of any length.
    """
    from mmcam import Actions, explain, load
    from mmcam.draw import check_look

    check_look(colormap, pane)
    adapter = load(model, weights=weights, labels=labels_file, device=device)
    with _progress() as bars:
        explaining = bars.add_task("explaining windows", total=None)
        found = explain(
            adapter,
            clip,
            Actions(labels=label or None, top=top),
            method=method,
            layers=layer or None,
            guided=guided,
            counterfactual=counterfactual,
            batch=batch,
            progress=lambda done, total: bars.update(explaining, completed=done, total=total),
        )
        drawing = bars.add_task("drawing frames", total=None)
        found.save(
            out,
            command=sys.argv,
            panes=pane,
            colormap=colormap,
            frames=frames,
            progress=lambda done, total: bars.update(drawing, completed=done, total=total),
        )
    report(found, clip, out)


@app.command()
def caption(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="pictures")],
    model: Model = "hf:Salesforce/blip-image-captioning-base",
    weights: Weights = None,
    text: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="a caption to explain; without it, what the model says"),
    ] = None,
    word: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--word", "-w", metavar="WORD", help="a word, or its position; repeat for more"
        ),
    ] = None,
    words: Annotated[
        str, typer.Option(metavar="all|visual|none", help="which words, where none are named")
    ] = "all",
    score: Annotated[
        str, typer.Option(metavar="logit|log-prob", help="what the score of a word is")
    ] = "logit",
    beam: Annotated[int, typer.Option(help="sentences followed while the model speaks")] = 1,
    limit: Annotated[int, typer.Option(help="the most tokens that the model says")] = 20,
    prompt: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="what a model that follows instructions is asked"),
    ] = None,
    method: Methods = ["gradcam"],  # noqa: B006 - typer copies it
    layer: Layers = None,
    guided: Guided = False,
    counterfactual: Counterfactual = False,
    device: Device = "cpu",
    colormap: Colormap = "inferno",
    out: Out = Path("mmcam-out"),
) -> None:
    """Explain where a caption comes from, word by word.

    The caption is the model's own, or one that is put into its mouth.
    """
    from mmcam import Caption, load
    from mmcam.draw import check_look

    check_look(colormap)
    asked = word or ([] if words == "none" else words)
    task = Caption(text, asked, score=score, beam=beam, limit=limit, prompt=prompt)
    adapter = load(model, weights=weights, device=device)
    options = Options(method, layer or None, guided, counterfactual)
    explain_pictures(adapter, images, task, options, colormap, out)


@app.command()
def vqa(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="a picture")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="what is asked of it")],
    model: Model = "hf:Salesforce/blip-vqa-base",
    weights: Weights = None,
    answer: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--answer", "-a", metavar="TEXT", help="an answer to force; repeat for more"),
    ] = None,
    contrast: Annotated[
        Optional[tuple[str, str]],  # noqa: UP045
        typer.Option(metavar="A B", help="also explain answer A rather than answer B"),
    ] = None,
    top: Annotated[int, typer.Option(help="without answers: how many of the model's own")] = 1,
    method: Methods = ["gradcam"],  # noqa: B006 - typer copies it
    layer: Layers = None,
    guided: Guided = False,
    counterfactual: Counterfactual = False,
    device: Device = "cpu",
    colormap: Colormap = "inferno",
    out: Out = Path("mmcam-out"),
) -> None:
    """Explain answers to a question about a picture.

    The answers are the model's own, or those that are forced on it.
    """
    from mmcam import Answers, load
    from mmcam.draw import check_look

    check_look(colormap)
    task = Answers(question, answer or None, top=top, contrast=contrast)
    adapter = load(model, weights=weights, device=device)
    options = Options(method, layer or None, guided, counterfactual)
    explain_pictures(adapter, [image], task, options, colormap, out, f": {question}")


@app.command()
def demo(out: Out = Path("mmcam-demo")) -> None:
    """Do the main job on a picture and a clip made on the spot.

    Nothing is downloaded.
    """
    from mmcam.demo import run

    for line in run(out):
        console.print(line, soft_wrap=True)


@listing.command("models")
def list_models(
    match: Annotated[str, typer.Option(help="only names that hold this text")] = "",
) -> None:
    """The families of models, and the names in them."""
    from mmcam.models import FAMILIES, model_names

    table = Table("family", "example", "holds", title="Models")
    for family, row in FAMILIES.items():
        table.add_row(family, row.example, row.summary)
    console.print(table)
    for name in model_names(match):
        console.print(name, soft_wrap=True)


@listing.command("methods")
def list_methods() -> None:
    """The methods, and where they come from."""
    from mmcam.plan import METHODS

    table = Table("method", "what it is", "source", title="Methods")
    for name, row in METHODS.items():
        table.add_row(name, row.summary, row.source)
    console.print(table)


@listing.command("layers")
def list_layers(model: Model, weights: Weights = None) -> None:
    """The layers of a model that have a grid to explain.

    They are listed in the order in which they run.
    """
    from mmcam.models import layers_of

    default, layers = layers_of(model, weights)
    table = Table("layer", "channels", "grid", title=f"Layers of {model}")
    for layer in layers:
        mark = " (default)" if layer.name in default else ""
        grid = " x ".join(map(str, layer.grid))
        table.add_row(layer.name + mark, str(layer.channels), grid)
    console.print(table)


@listing.command("answers")
def list_answers(
    model: Model,
    match: Annotated[str, typer.Option(help="only answers that hold this text")] = "",
) -> None:
    """The answers that a model of questions chooses from."""
    from mmcam import load
    from mmcam.errors import ModelError

    answers = getattr(load(model), "labels", None)
    if answers is None:
        raise ModelError(f"{model} writes its answers word by word; any answer can be forced")
    for answer in answers:
        if match.casefold() in answer.casefold():
            console.print(answer, soft_wrap=True)


class Options(NamedTuple):
    """How pictures are explained: what the commands pass on to `mmcam.explain`."""

    method: Sequence[str]
    layers: Sequence[str] | None
    guided: bool
    counterfactual: bool


def explain_pictures(
    adapter: Any,
    images: Sequence[str],
    task: Any,
    options: Options,
    colormap: str,
    out: Path,
    asked: str = "",
) -> None:
    """Each picture explained, written to its folder and reported; `asked` follows its name."""
    from mmcam import explain

    for image, folder in zip(images, folders(out, images), strict=True):
        found = explain(adapter, image, task, **options._asdict())
        found.save(folder, command=sys.argv, colormap=colormap)
        report(found, f"{image}{asked}", folder)


def report(found: Any, source: str, folder: Path) -> None:
    """What was found, a line for each map, and where the files are."""
    table = Table("label", "score", "probability", "method", "layer", "peak", title=source)
    for explanation in found:
        peak = explanation.peak()
        at = f"x {peak.x:.0f}, y {peak.y:.0f}"
        at += "" if peak.frame is None else f", frame {peak.frame}"
        share = "" if explanation.probability is None else f"{explanation.probability:.4f}"
        table.add_row(
            explanation.label,
            f"{explanation.score:.3f}",
            share,
            explanation.method,
            explanation.layer,
            "no positive evidence" if explanation.empty else at,
        )
    console.print(table)
    text = found.text or {}
    if "caption" in text:
        by = "the model says" if text["generated"] else "explained"
        caption = f"{by}: {text['caption']} (log-probability {text['log_prob']:.3f})"
        console.print(caption, soft_wrap=True)
    for note in notes(text):
        console.print(note, soft_wrap=True)
    console.print(f"written to {folder}", soft_wrap=True)


def folders(out: Path, images: Sequence[str]) -> list[Path]:
    """The folder of each picture's results: `out`, or one in it by the picture's name."""
    from mmcam.store import distinct

    if len(images) == 1:
        return [out]
    return [
        out / name
        for name in distinct([Path(image).stem.strip(".") or "picture" for image in images])
    ]


def _progress() -> Progress:
    errors = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


register(app, listing)
app.command()(page)


def main() -> NoReturn:
    """Run the command line; errors of mmcam are one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that it cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except MmcamError as error:
        message = " ".join(str(error).split())
        line = Text.assemble(("mmcam:", "bold red"), f" {type(error).__name__}: {message}")
        Console(stderr=True, soft_wrap=True).print(line)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
