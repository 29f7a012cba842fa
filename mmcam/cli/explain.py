"""The commands `classify`, `action`, `caption` and `vqa`."""

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
    Score,
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
    score: Score = None,
    method: Methods = ["gradcam"],  # noqa: B006 - typer copies it
    layer: Layers = None,
    guided: Guided = False,
    counterfactual: Counterfactual = False,
    device: Device = "cpu",
    colormap: Colormap = "inferno",
    out: Out = Path("mmcam-out"),
) -> None:
    """Explain the class scores of an image classifier."""
    from mmcam import Classes, load
    from mmcam.results.drawing import check_drawing_options

    check_drawing_options(colormap)
    adapter = load(model, weights=weights, labels=labels_file, device=device)
    task = Classes(labels=label or None, top=top, score=score or "logit")
    options = Options(method, layer or None, guided, counterfactual)
    explain_pictures(adapter, images, task, options, colormap, out)


def action(
    clip: Annotated[
        str, typer.Argument(metavar="CLIP", help="a video file, a GIF or a folder of frames")
    ],
    model: Model = "pytorchvideo:x3d_xs",
    weights: Weights = None,
    labels_file: LabelsFile = None,
    label: Labels = None,
    top: Top = 1,
    score: Score = None,
    method: Methods = ["gradcam"],  # noqa: B006 - typer copies it
    layer: Layers = None,
    guided: Guided = False,
    counterfactual: Counterfactual = False,
    device: Device = "cpu",
    colormap: Colormap = "inferno",
    pane: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="a pane of the written clip: original, overlay or explanation; "
            "repeat to set several side by side",
        ),
    ] = ["original", "overlay", "explanation"],  # noqa: B006 - typer copies it
    frames: Annotated[bool, typer.Option("--frames", help="also write every frame as PNG")] = False,
    batch: Annotated[int, typer.Option(help="the number of windows of the clip in a batch")] = 1,
    out: Out = Path("mmcam-out"),
) -> None:
    """Explain where and when a video model recognises an action.

    The clip may have any length.
    """
    from mmcam import Actions, explain, load
    from mmcam.results.drawing import check_drawing_options

    check_drawing_options(colormap, pane)
    adapter = load(model, weights=weights, labels=labels_file, device=device)
    with progress_bars() as bars:
        explaining = bars.add_task("explaining windows", total=None)
        explanations = explain(
            adapter,
            clip,
            Actions(labels=label or None, top=top, score=score or "logit"),
            method=method,
            layers=layer or None,
            guided=guided,
            counterfactual=counterfactual,
            batch=batch,
            progress=lambda done, total: bars.update(explaining, completed=done, total=total),
        )
        drawing = bars.add_task("drawing frames", total=None)
        explanations.save(
            out,
            command=sys.argv,
            panes=pane,
            colormap=colormap,
            frames=frames,
            progress=lambda done, total: bars.update(drawing, completed=done, total=total),
        )
    report(explanations, clip, out)


def caption(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="pictures")],
    model: Model = "hf:Salesforce/blip-image-captioning-base",
    weights: Weights = None,
    text: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="a caption to explain; without it, the model generates one"),
    ] = None,
    word: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            *("--word", "-w"),
            metavar="WORD",
            help="a word to explain, or its position from 0; repeat for several",
        ),
    ] = None,
    words: Annotated[
        str, typer.Option(metavar="all|visual|none", help="without --word: the words to explain")
    ] = "all",
    score: Score = None,
    num_beams: Annotated[
        int, typer.Option(help="the number of beams of the search; 1 is greedy")
    ] = 1,
    max_new_tokens: Annotated[
        int, typer.Option(help="the maximum number of tokens to generate")
    ] = 20,
    prompt: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="the instruction for an instruction-tuned model, or the beginning of the caption"
        ),
    ] = None,
    method: Methods = ["gradcam"],  # noqa: B006 - typer copies it
    layer: Layers = None,
    guided: Guided = False,
    counterfactual: Counterfactual = False,
    device: Device = "cpu",
    colormap: Colormap = "inferno",
    out: Out = Path("mmcam-out"),
) -> None:
    """Explain a caption, as a whole and word by word.

    The caption is generated by the model, or given by --text.
    """
    from mmcam import Caption, load
    from mmcam.results.drawing import check_drawing_options

    check_drawing_options(colormap)
    selected_words = word or ([] if words == "none" else words)
    task = Caption(
        text,
        selected_words,
        score=score or "logit",
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        prompt=prompt,
    )
    adapter = load(model, weights=weights, device=device)
    options = Options(method, layer or None, guided, counterfactual)
    explain_pictures(adapter, images, task, options, colormap, out)


def vqa(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="a picture")],
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="a question about the picture")
    ],
    model: Model = "hf:Salesforce/blip-vqa-base",
    weights: Weights = None,
    answer: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            *("--answer", "-a"),
            metavar="TEXT",
            help="an answer to explain; repeat for several",
        ),
    ] = None,
    contrast: Annotated[
        Optional[tuple[str, str]],  # noqa: UP045
        typer.Option(metavar="A B", help="also explain why answer A rather than answer B"),
    ] = None,
    top: Annotated[
        int, typer.Option(help="without --answer: explain this many of the model's best answers")
    ] = 1,
    score: Score = None,
    method: Methods = ["gradcam"],  # noqa: B006 - typer copies it
    layer: Layers = None,
    guided: Guided = False,
    counterfactual: Counterfactual = False,
    device: Device = "cpu",
    colormap: Colormap = "inferno",
    out: Out = Path("mmcam-out"),
) -> None:
    """Explain answers to a question about a picture.

    The answers are the model's own, or given by --answer.
    """
    from mmcam import Answers, load
    from mmcam.results.drawing import check_drawing_options

    check_drawing_options(colormap)
    task = Answers(question, answer or None, top=top, contrast=contrast, score=score)
    adapter = load(model, weights=weights, device=device)
    options = Options(method, layer or None, guided, counterfactual)
    explain_pictures(adapter, [image], task, options, colormap, out, f": {question}")


class Options(NamedTuple):
    """Arguments that the commands pass on to `mmcam.explain`."""

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
    title_suffix: str = "",
) -> None:
    """Explain each picture, save the results, and print them as a table.

    The table's title is the name of the picture followed by `title_suffix`.

    Raises:
        MmcamError: as `mmcam.explain` and `Explanations.save`.
    """
    from mmcam import explain

    for image, folder in zip(images, folders(out, images), strict=True):
        explanations = explain(adapter, image, task, **options._asdict())
        explanations.save(folder, command=sys.argv, colormap=colormap)
        report(explanations, f"{image}{title_suffix}", folder)


def report(explanations: Any, title: str, folder: Path) -> None:
    """Print a row for each map, the caption or the notes on the answers, and the output folder.

    Raises:
        InputError: a map has NaN or infinite values.
    """
    from mmcam.page.record import answer_notes

    table = Table("label", "score", "probability", "method", "layer", "peak", title=title)
    for explanation in explanations:
        peak = explanation.peak()
        location = f"x {peak.x:.0f}, y {peak.y:.0f}"
        location += "" if peak.frame is None else f", frame {peak.frame}"
        probability = "" if explanation.probability is None else f"{explanation.probability:.4f}"
        table.add_row(
            explanation.label,
            f"{explanation.score:.3f}",
            probability,
            explanation.method,
            explanation.layer,
            "no positive evidence" if explanation.empty else location,
        )
    console.print(table)
    text = explanations.text or {}
    if "caption" in text:
        origin = "generated" if text["generated"] else "given"
        caption = f"{origin} caption: {text['caption']} (log-probability {text['log_prob']:.3f})"
        console.print(caption, soft_wrap=True)
    for note in answer_notes(text):
        console.print(note, soft_wrap=True)
    console.print(f"written to {folder}", soft_wrap=True)


def folders(out: Path, images: Sequence[str]) -> list[Path]:
    """The output folder of each picture: `out` for one picture, else a subfolder for each."""
    from mmcam.results.files import unique_names

    if len(images) == 1:
        return [out]
    return [
        out / name
        for name in unique_names([Path(image).stem.strip(".") or "picture" for image in images])
    ]
