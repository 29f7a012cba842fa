"""The commands that explain: `classify`, `action`, `caption` and `vqa`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Optional

import typer
from rich.table import Table

from mmcam.cli.console import console, progress_bars
from mmcam.cli.options import (
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
    from mmcam.results.drawing import check_drawing_options

    check_drawing_options(colormap)
    adapter = load(model, weights=weights, labels=labels_file, device=device)
    task = Classes(labels=label or None, top=top)
    options = Options(method, layer or None, guided, counterfactual)
    explain_pictures(adapter, images, task, options, colormap, out)


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
    from mmcam.results.drawing import check_drawing_options

    check_drawing_options(colormap, pane)
    adapter = load(model, weights=weights, labels=labels_file, device=device)
    with progress_bars() as bars:
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
    num_beams: Annotated[int, typer.Option(help="beams of the search; 1 is greedy")] = 1,
    max_new_tokens: Annotated[
        int, typer.Option(help="the most tokens that the model generates")
    ] = 20,
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
    from mmcam.results.drawing import check_drawing_options

    check_drawing_options(colormap)
    asked = word or ([] if words == "none" else words)
    task = Caption(
        text,
        asked,
        score=score,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        prompt=prompt,
    )
    adapter = load(model, weights=weights, device=device)
    options = Options(method, layer or None, guided, counterfactual)
    explain_pictures(adapter, images, task, options, colormap, out)


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
    from mmcam.results.drawing import check_drawing_options

    check_drawing_options(colormap)
    task = Answers(question, answer or None, top=top, contrast=contrast)
    adapter = load(model, weights=weights, device=device)
    options = Options(method, layer or None, guided, counterfactual)
    explain_pictures(adapter, [image], task, options, colormap, out, f": {question}")


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
    from mmcam.page.record import answer_notes

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
    for note in answer_notes(text):
        console.print(note, soft_wrap=True)
    console.print(f"written to {folder}", soft_wrap=True)


def folders(out: Path, images: Sequence[str]) -> list[Path]:
    """The folder of each picture's results: `out`, or one in it by the picture's name."""
    from mmcam.results.files import unique_names

    if len(images) == 1:
        return [out]
    return [
        out / name
        for name in unique_names([Path(image).stem.strip(".") or "picture" for image in images])
    ]
