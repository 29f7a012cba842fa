"""VQA's questions and answers, and VQA-HAT's, for which people marked where to look."""

from __future__ import annotations

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
    """VQA's questions with the answer that most people gave; VQA-HAT's are those with human maps.

    Args:
        folder: the one with `*questions.json`, `*annotations.json` and a folder of photos.
        questions: the questions' file, in `folder` or anywhere; the only one there when None.
        annotations: the answers' file likewise; questions have no labels without it.
        images: the folder of photos (`COCO_val2014_000000000042.jpg`, also in a folder `val2014`).
        maps: a folder of human maps named by question (`1234_1.png`); only their questions count.

    Raises:
        InputError: it cannot be read.
    """
    asked = _only(folder, "questions", questions)
    if asked is None:
        raise InputError(
            f"{folder} holds no file of questions (*questions.json); name it (?questions=FILE)"
        )
    content = read_json(asked, "questions of VQA")
    answered = _only(folder, "annotations", annotations)
    people = find_human_maps(maps) if maps else None
    try:
        answers = (
            {
                row["question_id"]: str(row["multiple_choice_answer"])
                for row in read_json(answered, "annotations of VQA")["annotations"]
            }
            if answered
            else {}
        )
        split = str(content.get("data_subtype", ""))
        rows = [
            (row["question_id"], row["image_id"], str(row["question"]))
            for row in content["questions"]
            if people is None or str(row["question_id"]) in people
        ]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{asked} is no file of VQA ({type(error).__name__}: {error}); it needs questions with "
            "question_id, image_id and question"
        ) from error
    where = Path(images) if images else folder
    make = partial(_question, where, split, answers, people or {})
    return Rows(rows, make, f"{asked}" + (f" with the maps in {maps}" if maps else ""))


def read_vqa_hat(
    folder: Path,
    *,
    questions: str | None = None,
    annotations: str | None = None,
    images: str | None = None,
    vqa: str | None = None,
) -> Rows:
    """VQA-HAT: questions of VQA (its first release) for which people uncovered what they needed.

    Args:
        folder: the folder of maps, `1234_1.png` or `1234.png` for question 1234.
        questions: as `read_vqa`.
        annotations: as `read_vqa`.
        images: as `read_vqa`.
        vqa: the folder of VQA's files; that above the maps when None.

    Raises:
        InputError: it cannot be read.
    """
    return read_vqa(
        Path(vqa) if vqa else folder.parent,
        questions=questions,
        annotations=annotations,
        images=images,
        maps=str(folder),
    )


def _only(folder: Path, kind: str, name: str | None) -> Path | None:
    if name is not None:
        return folder / name if (folder / name).is_file() else Path(name)
    found = sorted(folder.glob(f"*{kind}.json"))
    if len(found) > 1:
        have = ", ".join(path.name for path in found)
        raise InputError(f"{folder} has several files of {kind} ({have}); name one (?{kind}=FILE)")
    return found[0] if found else None


def _question(
    where: Path,
    split: str,
    answers: dict[Any, str],
    people: dict[str, list[Path]],
    row: tuple[Any, Any, str],
) -> Item:
    number, image, question = row
    name = f"COCO_{split}_{int(image):012d}.jpg" if str(image).isdecimal() else str(image)
    found = [where / name, where / split / name, where / name.rpartition("_")[2]]
    source = next((path for path in found if path.is_file()), found[0])
    return Item(
        id=str(number),
        source=str(source),
        text=question,
        labels=(answers[number],) if number in answers else (),
        human_maps=tuple(str(path) for path in people.get(str(number), ())),
        group=str(image),
    )
