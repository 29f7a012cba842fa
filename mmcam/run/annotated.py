"""Datasets with JSON annotations: COCO, VQA, VQA-HAT, and DenseCap's results."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from mmcam.errors import InputError
from mmcam.evaluators.coco import Photo, read_captions, read_instances
from mmcam.evaluators.densecap import Description, read_densecap
from mmcam.evaluators.human_attention import find_human_maps
from mmcam.media.images import opened
from mmcam.run.items import WHOLE, Item, Region, Rows


def read_coco(
    folder: Path, *, task: str = "", split: str | None = None, images: str | None = None
) -> Rows:
    """COCO's photos with the segments and boxes of their categories; an item a caption, if asked.

    Args:
        folder: the one with `annotations/instances_SPLIT.json`, `captions_SPLIT.json` or both.
        task: "caption" makes an item of every caption; else an item is a photo, and its labels
            are its categories.
        split: such as `val2017`; the only one there when None.
        images: the folder of photos; the split's own in `folder` when None.

    Raises:
        InputError: it cannot be read.
    """
    if split is None:
        stems = {
            path.stem.partition("_")[2]
            for kind in ("instances", "captions")
            for path in (folder / "annotations").glob(f"{kind}_*.json")
        }
        if len(stems) != 1:
            have = ", ".join(sorted(stems)) or "none"
            raise InputError(
                f"{folder} has these splits: {have}; name one (coco:{folder}?split=val2017)"
            )
        (split,) = stems
    files = [folder / "annotations" / f"{kind}_{split}.json" for kind in ("instances", "captions")]
    photos = read_instances(files[0]) if files[0].is_file() else {}
    where = Path(images) if images else folder / split
    if task == "caption":
        names = {} if photos else _file_names(files[1])
        rows = [
            (photo, number, caption)
            for photo, captions in sorted(read_captions(files[1]).items())
            for number, caption in enumerate(captions)
        ]
        return Rows(rows, partial(_coco_caption, where, photos, names), f"{files[1]}")
    if not photos:
        raise InputError(f"{files[0]}: there is no such file; check the folder and the split")
    return Rows(sorted(photos), partial(_coco_photo, where, photos), f"{files[0]}")


def _file_names(path: Path) -> dict[int, str]:
    return {row["id"]: str(row["file_name"]) for row in _json(path, "COCO captions")["images"]}


def _coco_photo(where: Path, photos: dict[int, Photo], number: int) -> Item:
    photo = photos[number]
    return Item(
        id=str(number),
        source=str(where / photo.file_name),
        labels=photo.categories,
        regions=_coco_regions(photo),
    )


def _coco_caption(
    where: Path, photos: dict[int, Photo], names: dict[int, str], row: tuple[int, int, str]
) -> Item:
    number, which, caption = row
    photo = photos.get(number)
    if photo is None and number not in names:
        raise InputError(f"caption of photo {number}, which the instances do not name")
    return Item(
        id=f"{number}#{which}",
        source=str(where / (photo.file_name if photo else names[number])),
        text=caption,
        regions=_coco_regions(photo) if photo else {},
        group=str(number),
    )


def _coco_regions(photo: Photo) -> dict[str, Region]:
    return {
        category: Region(
            boxes=tuple(photo.boxes(category)),
            segments=tuple(i.segmentation for i in photo.instances if i.category == category),
        )
        for category in photo.categories
    }


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
    content = _json(asked, "questions of VQA")
    answered = _only(folder, "annotations", annotations)
    people = find_human_maps(maps) if maps else None
    try:
        answers = (
            {
                row["question_id"]: str(row["multiple_choice_answer"])
                for row in _json(answered, "annotations of VQA")["annotations"]
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


def read_densecap_results(
    path: Path, *, images: str | None = None, count: str = "5", side: str | None = None
) -> Rows:
    """DenseCap's descriptions of regions, an item each: the text to explain and its box.

    Args:
        path: the `results.json` that DenseCap writes.
        images: the folder of pictures; that of the file when None.
        count: how many descriptions of each picture, the best first; `all` for all.
        side: the longer side of the resized pictures, where the file does not say it.

    Raises:
        InputError: it cannot be read.
    """
    most = None if count == "all" else int(count)
    found = read_densecap(path, most, float(side) if side else None)
    rows = [(number, one) for ones in found.values() for number, one in enumerate(ones)]
    return Rows(rows, partial(_described, Path(images) if images else path.parent), f"{path}")


def _described(where: Path, row: tuple[int, Description]) -> Item:
    number, one = row
    source = where / one.picture
    with opened(source) as image:
        size = image.size[1], image.size[0]
    return Item(
        id=f"{one.picture}#{number}",
        source=str(source),
        text=one.caption,
        regions={WHOLE: Region(boxes=(one.box_on(size),))},
        group=one.picture,
    )


def _json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); name a file of {what}") from error
