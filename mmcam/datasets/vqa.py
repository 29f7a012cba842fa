"""Read the questions and answers of VQA and VizWiz, and of VQA-HAT with human attention maps."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from mmcam.datasets.files import read_json
from mmcam.datasets.human_maps import find_human_maps
from mmcam.datasets.items import Item, Rows
from mmcam.errors import InputError


def read_vqa(
    folder: Path,
    *,
    questions: str | None = None,
    annotations: str | None = None,
    images: str | None = None,
    maps: str | None = None,
) -> Rows:
    """VQA's questions with their most common answers; optionally only those with human maps.

    Args:
        folder: contains `*questions.json`, `*annotations.json` and a folder of photos.
        questions: the questions file, in `folder` or elsewhere; if None, the only one in `folder`.
            A file of VizWiz is a list of questions with their answers; the picture's name is the
            question id.
        annotations: the answers file, likewise; without one, only questions of VizWiz have labels.
        images: the folder of photos, named `COCO_val2014_000000000042.jpg` (also in a subfolder
            `val2014`), `000000000042.jpg`, or by their id if it is no number; if None, `folder`.
        maps: a folder of human maps named by question (`1234_1.png`), to use only these questions.

    Raises:
        InputError: a file or the maps cannot be read, a file has another format, there are no or
            several questions files or several answers files to choose from, or no question is left.
    """
    questions_file = _find_file(folder, "questions", questions)
    if questions_file is None:
        raise InputError(
            f"{folder} has no questions file (*questions.json); name one (?questions=FILE)"
        )
    content = read_json(questions_file, "VQA questions")
    annotations_file = _find_file(folder, "annotations", annotations)
    human_maps = find_human_maps(maps) if maps else None
    answers = _read_answers(annotations_file) if annotations_file else {}
    try:
        if isinstance(content, list):
            content = _from_vizwiz(content)
            answers = _answers(content["annotations"]) | answers
        split = str(content.get("data_subtype", ""))
        rows = [
            (row["question_id"], row["image_id"], row["question"])
            for row in content["questions"]
            if human_maps is None or str(row["question_id"]) in human_maps
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{questions_file} is not a VQA file ({type(error).__name__}: {error}); it needs "
            "questions with question_id, image_id and question, or as in VizWiz a list with image, "
            "question and answers"
        ) from error
    image_folder = Path(images) if images else folder
    make_item = partial(
        _question_item, questions_file, image_folder, split, answers, human_maps or {}
    )
    return Rows(
        rows, make_item, f"{questions_file}" + (f" with the maps in {maps}" if maps else "")
    )


def _read_answers(path: Path) -> dict[Any, str]:
    """The answer that most people gave to each question.

    Raises:
        InputError: the file cannot be read or has another format.
    """
    content = read_json(path, "VQA annotations")
    try:
        if isinstance(content, list):
            content = _from_vizwiz(content)
        return _answers(content["annotations"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a VQA file ({type(error).__name__}: {error}); it needs annotations "
            "with question_id and multiple_choice_answer or answers"
        ) from error


def _from_vizwiz(content: list[Any]) -> dict[str, Any]:
    """VizWiz's rows in the form of VQA; those of its test set have no answers."""
    rows = [{**row, "question_id": row["image"], "image_id": row["image"]} for row in content]
    return {"questions": rows, "annotations": [row for row in rows if "answers" in row]}


def _answers(annotations: list[Any]) -> dict[Any, str]:
    """The answer to each question: the one that VQA chose, else the most common one, if any."""
    answers: dict[Any, str] = {}
    for row in annotations:
        answer = row.get("multiple_choice_answer")
        candidates = [a["answer"] for a in row["answers"]] if answer is None else [answer]
        if candidates:
            answers[row["question_id"]] = str(Counter(candidates).most_common(1)[0][0])
    return answers


def read_vqa_hat(
    folder: Path,
    *,
    questions: str | None = None,
    annotations: str | None = None,
    images: str | None = None,
    vqa: str | None = None,
) -> Rows:
    """VQA-HAT: questions of VQA v1 with maps of the regions that people uncovered.

    Args:
        folder: the folder of maps, `1234_1.png` or `1234.png` for question 1234.
        questions: as in `read_vqa`.
        annotations: as in `read_vqa`.
        images: as in `read_vqa`.
        vqa: the folder of VQA's files (`folder` of `read_vqa`); the parent of the maps' folder if
            None.

    Raises:
        InputError: as in `read_vqa`.
    """
    return read_vqa(
        Path(vqa) if vqa else folder.parent,
        questions=questions,
        annotations=annotations,
        images=images,
        maps=str(folder),
    )


def _find_file(folder: Path, kind: str, name: str | None) -> Path | None:
    if name is not None:
        return folder / name if (folder / name).is_file() else Path(name)
    files = sorted(folder.glob(f"*{kind}.json"))
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise InputError(f"{folder} has several {kind} files ({names}); name one (?{kind}=FILE)")
    return files[0] if files else None


def _question_item(
    questions_file: Path,
    image_folder: Path,
    split: str,
    answers: dict[Any, str],
    human_maps: dict[str, list[Path]],
    row: tuple[Any, Any, Any],
) -> Item:
    question_id, image_id, question = row
    if not isinstance(question, str) or not question.strip():
        raise InputError(
            f"{questions_file}: question {question_id} is {question!r}, not a text; write the "
            "question, or leave the entry out"
        )
    if str(image_id).isdecimal():
        number = f"{int(image_id):012d}.jpg"
        name = f"COCO_{split}_{number}"
        candidates = [image_folder / name, image_folder / split / name, image_folder / number]
    else:
        candidates = [image_folder / str(image_id), image_folder / split / str(image_id)]
    source = next((path for path in candidates if path.is_file()), candidates[0])
    return Item(
        id=str(question_id),
        source=str(source),
        text=question,
        labels=(answers[question_id],) if question_id in answers else (),
        human_maps=tuple(str(path) for path in human_maps.get(str(question_id), ())),
        group=str(image_id),
    )
