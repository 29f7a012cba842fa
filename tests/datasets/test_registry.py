"""Every kind of dataset read from files written by hand, and what is said of broken ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmcam.datasets import DATASETS, Item, Region, open_data
from mmcam.datasets.items import WHOLE
from mmcam.errors import InputError, MissingExtra

SQUARE = [[1, 1, 4, 1, 4, 3, 1, 3]]


def photo(path: Path, width: int = 20, height: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(path)
    return path


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_every_row_of_the_table_has_an_example_of_its_own_kind() -> None:
    for name, row in DATASETS.items():
        assert row.example.startswith(f"{name}:")
        assert row.summary
        assert "task" not in row.options


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("cocoa:x", "nearest kind: coco"),
        ("coco", "is not a dataset specification"),
        ("jsonl:", "is not a dataset specification"),
        ("voc:x?spilt=val", "has no option 'spilt'; it has: split"),
        ("jsonl:missing.jsonl", "cannot be read"),
        ("imagefolder:missing", "not a folder"),
        ("kinetics:missing.csv", "cannot be read"),
        ("flickr:missing.txt", "cannot be read"),
        ("densecap:missing.json", "is not a DenseCap results file"),
        ("vqa:.", "no questions file"),
        ("coco:.", "has these splits: none"),
        ("voc:.", "has no items"),
    ],
)
def test_errors_say_what_is_wrong(
    spec: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=match):
        open_data(spec)


def test_jsonl_reads_every_key(tmp_path: Path) -> None:
    line = {
        "id": "one",
        "path": "photos/a.png",
        "text": "a dog runs",
        "labels": ["dog", 7],
        "regions": [
            {"label": "dog", "box": [1, 2, 5, 6]},
            {"label": "dog", "segmentation": SQUARE},
            {"mask": "mask.png"},
        ],
        "human_maps": ["human.png"],
        "group": "pair",
        "start": 1,
        "end": 2.5,
        "_note": "passed over",
    }
    file = write(tmp_path / "items.jsonl", json.dumps(line) + "\n\n" + '{"path": "é.png"}\n')
    data = open_data(f"jsonl:{file}")
    assert len(data) == 2
    assert data.name == f"jsonl:{file}"
    assert data[0] == Item(
        id="one",
        source=str(tmp_path / "photos/a.png"),
        text="a dog runs",
        labels=("dog", 7),
        regions={
            "dog": Region(boxes=((1, 2, 5, 6),), segments=(SQUARE,)),
            WHOLE: Region(masks=(str(tmp_path / "mask.png"),)),
        },
        human_maps=(str(tmp_path / "human.png"),),
        span=(1.0, 2.5),
        group="pair",
    )
    assert data[-1] == Item(id="é.png", source=str(tmp_path / "é.png"))
    with pytest.raises(IndexError):
        data[2]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{broken", "Expecting"),
        ("[1]", "not a JSON object"),
        ("{}", "'path'"),
        ('{"path": "a.png", "end": 3}', "'start' and 'end' belong together"),
        ('{"path": "a.png", "start": 3}', "'start' and 'end' belong together"),
        ('{"path": 3}', "path 3 is not a string"),
        ('{"path": "a", "label": "dog"}', "'label' is unknown; nearest: labels"),
        ('{"path": "a", "labels": "dog"}', "not a list of names"),
        ('{"path": "a", "labels": [true]}', "not a list of names"),
        ('{"path": "a", "human_maps": "b.png"}', "human_maps 'b.png' is not a list of paths"),
        ('{"path": "a", "human_maps": [3]}', r"human_maps \[3\] is not a list of paths"),
        ('{"path": "a", "regions": [{"label": "dog"}]}', "no box"),
        ('{"path": "a", "regions": [{"box": [5, 1, 2, 3]}]}', "left, top, right, bottom"),
        ('{"path": "a", "regions": [{"box": [5, 1]}]}', "not enough values"),
        ('{"path": "a", "start": 3}', "'end'"),
    ],
)
def test_a_bad_line_is_an_error_of_its_item_alone(line: str, match: str, tmp_path: Path) -> None:
    file = write(tmp_path / "items.jsonl", f'{line}\n{{"path": "good.png"}}\n')
    data = open_data(f"jsonl:{file}")
    with pytest.raises(InputError, match=match):
        data[0]
    assert data[1].id == "good.png"


def test_fingerprints_tell_datasets_apart(tmp_path: Path) -> None:
    file = write(tmp_path / "items.jsonl", '{"path": "a.png"}\n')
    before = open_data(f"jsonl:{file}").fingerprint
    assert open_data(f"jsonl:{file}").fingerprint == before
    write(file, '{"path": "b.png"}\n')
    assert open_data(f"jsonl:{file}").fingerprint != before
    photo(tmp_path / "photos" / "a.png")
    alone = open_data(f"imagefolder:{tmp_path}/photos").fingerprint
    photo(tmp_path / "photos" / "b.png")
    assert open_data(f"imagefolder:{tmp_path}/photos").fingerprint != alone


def voc_file(*boxes: tuple[str, int, int, int, int]) -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in boxes
    )
    return f"<annotation>{objects}</annotation>"


def test_class_folders_and_imagenets_file_names(tmp_path: Path) -> None:
    photo(tmp_path / "n01440764" / "x.JPEG")
    photo(tmp_path / "n01440764_great_white.JPEG")
    photo(tmp_path / "unnamed.png")
    photo(tmp_path / "zebra" / "y.png")
    write(tmp_path / "zebra" / "notes.txt", "no picture")
    data = open_data(f"imagefolder:{tmp_path}")
    assert [(item.id, item.labels) for item in data] == [
        ("n01440764/x.JPEG", ("n01440764",)),
        ("n01440764_great_white.JPEG", ("great white",)),
        ("unnamed.png", ()),
        ("zebra/y.png", ("zebra",)),
    ]
    write(tmp_path / "LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca\n")
    data = open_data(f"imagefolder:{tmp_path}")
    assert data[0].labels == ("tench",)
    ids = [getattr(label, "wordnet_id", None) for item in data for label in item.labels]
    assert ids == ["n01440764", "n01440764", None]
    write(tmp_path / "xml" / "x.xml", voc_file(("n01440764", 1, 2, 5, 6)))
    boxed = open_data(f"imagefolder:{tmp_path}?boxes={tmp_path}/xml")
    assert boxed[0].regions == {"tench": Region(boxes=((0, 1, 5, 6),))}
    with pytest.raises(InputError, match="check the option 'boxes'"):
        boxed[1]


def test_voc_joins_the_boxes_of_a_class(tmp_path: Path) -> None:
    boxes = voc_file(("dog", 1, 1, 4, 5), ("cat", 2, 2, 3, 3), ("dog", 5, 6, 9, 8))
    write(tmp_path / "Annotations" / "7.xml", boxes)
    write(tmp_path / "Annotations" / "8.xml", "<annotation>")
    write(tmp_path / "ImageSets" / "Main" / "val.txt", "7  1\n")
    (item,) = open_data(f"voc:{tmp_path}?split=val")
    assert item.labels == ("dog", "cat")
    assert item.regions["dog"].boxes == ((0, 0, 4, 5), (4, 5, 9, 8))
    assert item.source == str(tmp_path / "JPEGImages" / "7.jpg")
    with pytest.raises(InputError, match="is not a VOC annotation"):
        open_data(f"voc:{tmp_path}")[1]


def test_xml_with_entities_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>'
    write(tmp_path / "Annotations" / "7.xml", bomb)
    with pytest.raises(InputError, match="entities"):
        open_data(f"voc:{tmp_path}")[0]


def test_kinetics_finds_clips_by_its_own_names(tmp_path: Path) -> None:
    rows = "label,youtube_id,time_start,time_end,split\n"
    rows += "high jump,abc,3,13,val\narm wrestling,d_e,0,10,val\nyoga,gone,0,10,test\n"
    file = write(tmp_path / "val.csv", rows)
    trimmed = photo(
        tmp_path / "clips" / "high jump" / "abc_000003_000013.mkv".replace("mkv", "png")
    )
    trimmed.rename(trimmed.with_suffix(".mkv"))
    whole = photo(tmp_path / "clips" / "d_e.png")
    whole.rename(whole.with_suffix(".mp4"))
    data = open_data(f"kinetics:{file}?clips={tmp_path}/clips")
    assert data[0] == Item(
        id="abc_000003_000013",
        source=str(trimmed.with_suffix(".mkv")),
        labels=("high jump",),
    )
    assert data[1].source == str(whole.with_suffix(".mp4"))
    assert data[1].span == (0.0, 10.0)
    with pytest.raises(InputError, match="no clip gone_000000_000010"):
        data[2]
    assert len(open_data(f"kinetics:{file}?clips={tmp_path}/clips&split=val")) == 2


@pytest.mark.parametrize("text", ["a b.mp4,3\nc.mp4,yoga\n", "c.mp4 3\nc.mp4 yoga\n"])
def test_lists_of_clips(text: str, tmp_path: Path) -> None:
    data = open_data(f"kinetics:{write(tmp_path / 'list.txt', text)}")
    assert [item.labels for item in data] == [(3,), ("yoga",)]
    assert data[1].source == str(tmp_path / "c.mp4")
    with pytest.raises(InputError, match="not a line of a clip list"):
        open_data(f"kinetics:{write(tmp_path / 'bad.txt', 'alone')}")


def coco(folder: Path) -> Path:
    images = [{"id": 7, "file_name": "7.png", "width": 20, "height": 16}]
    thing = {"image_id": 7, "iscrowd": 0, "segmentation": SQUARE, "bbox": [1, 1, 3, 2]}
    objects = [{**thing, "category_id": 18}, {**thing, "category_id": 1, "bbox": [5, 5, 4, 4]}]
    names = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
    content = {"images": images, "annotations": objects, "categories": names}
    write(folder / "annotations" / "instances_mini.json", content)
    texts = [{"image_id": 7, "caption": "a dog"}, {"image_id": 7, "caption": "a person "}]
    captions = {"images": images, "annotations": texts}
    write(folder / "annotations" / "captions_mini.json", captions)
    photo(folder / "mini" / "7.png")
    return folder


def test_coco_has_an_item_a_photo_or_a_caption(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    (item,) = open_data(f"coco:{folder}", "classes")
    assert item.labels == ("dog", "person")
    assert item.regions["dog"].boxes_on((16, 20)) == ((1, 1, 4, 3),)
    assert item.regions["person"].mask((16, 20)).sum() == 6
    captions = list(open_data(f"coco:{folder}?split=mini", "caption"))
    assert [(row.id, row.text) for row in captions] == [("7#0", "a dog"), ("7#1", "a person")]
    assert captions[0].regions == item.regions
    assert {row.group for row in captions} == {"7"}
    (folder / "annotations" / "instances_mini.json").unlink()
    (first, _) = open_data(f"coco:{folder}", "caption")
    assert first.source == str(folder / "mini" / "7.png")
    with pytest.raises(InputError, match="no such file"):
        open_data(f"coco:{folder}", "classes")
    write(folder / "annotations" / "captions_other.json", {})
    with pytest.raises(InputError, match="mini, other; name one"):
        open_data(f"coco:{folder}", "caption")


def vqa(folder: Path) -> Path:
    rows = [
        {"question_id": 1234, "image_id": 42, "question": "what color?"},
        {"question_id": 1235, "image_id": 42, "question": "how many?"},
    ]
    write(folder / "v2_questions.json", {"data_subtype": "val2014", "questions": rows})
    answers = [{"question_id": 1234, "multiple_choice_answer": "red"}]
    write(folder / "v2_annotations.json", {"annotations": answers})
    photo(folder / "val2014" / "COCO_val2014_000000000042.jpg")
    return folder


def test_vqa_has_an_item_a_question(tmp_path: Path) -> None:
    first, second = open_data(f"vqa:{vqa(tmp_path)}")
    assert (first.text, first.labels) == ("what color?", ("red",))
    assert Path(first.source).is_file()
    assert second.labels == ()


def test_vizwiz_has_questions_with_answers_in_one_list(tmp_path: Path) -> None:
    answers = [{"answer": answer} for answer in ("can", "soup", "soup")]
    rows = [
        {"image": "VizWiz_val_00000001.jpg", "question": "What is this?", "answers": answers},
        {"image": "VizWiz_val_00000002.jpg", "question": "And this?", "answers": []},
        {"image": "VizWiz_val_00000003.jpg", "question": "And that?"},
    ]
    file = write(tmp_path / "q_questions.json", rows)
    for options in ("", f"?annotations={file}"):
        items = list(open_data(f"vqa:{tmp_path}{options}"))
        assert [item.labels for item in items] == [("soup",), (), ()]
        assert items[0].id == "VizWiz_val_00000001.jpg"
        assert items[0].text == "What is this?"
        assert items[0].source == str(tmp_path / "VizWiz_val_00000001.jpg")


@pytest.mark.parametrize("content", [["what?"], [{"question": "what?"}], "what?", 3, None])
@pytest.mark.parametrize("kind", ["questions", "annotations"])
def test_what_is_not_vqa_is_refused(content: Any, kind: str, tmp_path: Path) -> None:
    vqa(tmp_path)
    file = tmp_path / f"v2_{kind}.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"v2_{kind}\.json is not a VQA file .*; it needs"):
        open_data(f"vqa:{tmp_path}")


@pytest.mark.parametrize("question", [None, " ", 7])
def test_a_question_without_text_is_an_error_of_its_item_alone(
    question: Any, tmp_path: Path
) -> None:
    rows = [
        {"question_id": 1234, "image_id": 42, "question": question},
        {"question_id": 1235, "image_id": 42, "question": "how many?"},
    ]
    write(vqa(tmp_path) / "v2_questions.json", {"questions": rows})
    data = open_data(f"vqa:{tmp_path}")
    with pytest.raises(InputError, match=r"v2_questions\.json: question 1234 is .*, not a text"):
        data[0]
    assert data[1].text == "how many?"


@pytest.mark.parametrize("chosen", [{}, {"multiple_choice_answer": None}])
def test_without_a_chosen_answer_the_most_common_one_is_the_label(
    chosen: dict[str, Any], tmp_path: Path
) -> None:
    answers = [{"answer": answer} for answer in ("blue", "red", "red")]
    row = {"question_id": 1234, "answers": answers, **chosen}
    write(vqa(tmp_path) / "v2_annotations.json", {"annotations": [row]})
    assert open_data(f"vqa:{tmp_path}")[0].labels == ("red",)


def test_vqa_hat_has_the_questions_with_maps(tmp_path: Path) -> None:
    vqa(tmp_path)
    for name in ("1234_1.png", "1234_2.png", "99.png"):
        photo(tmp_path / "maps" / name)
    (item,) = open_data(f"vqa-hat:{tmp_path}/maps")
    assert item.id == "1234"
    assert [human_map.shape for human_map in item.read_human_maps()] == [(16, 20), (16, 20)]
    (tmp_path / "v2_questions.json").write_text('{"questions": [{}]}')
    with pytest.raises(InputError, match="is not a VQA file"):
        open_data(f"vqa-hat:{tmp_path}/maps")


def test_densecap_scales_boxes_to_the_picture(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", width=40, height=20)
    row = {"img_name": "a.png", "captions": ["worst", "best"], "scores": [0.1, 0.9]}
    row["boxes"] = [[0, 0, 9, 9], [20, 10, 40, 20]]
    file = write(tmp_path / "results.json", {"results": [row], "opt": {"image_size": 80}})
    items = list(open_data(f"densecap:{file}"))
    assert [item.text for item in items] == ["best", "worst"]
    assert items[0].regions[WHOLE].boxes == ((10, 5, 30, 15),)
    assert len(open_data(f"densecap:{file}?count=1")) == 1
    with pytest.raises(InputError, match="correct the option"):
        open_data(f"densecap:{file}?count=few")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Flickr8k.token.txt", "a.png#0\tA dog , here .\na.png#1\tTwo\nb.png#0\tThree\n"),
        ("captions.txt", 'image,caption\na.png,"A dog , here ."\na.png,Two\nb.png,Three\n'),
        ("captions.txt", "a.png,A dog , here .\na.png,Two\nb.png,Three\n"),
        (
            "results.csv",
            "image_name| comment_number| comment\na.png| 0| A dog , here .\n"
            "a.png| 1| Two\nb.png| 0| Three\n",
        ),
        (
            "results.csv",
            "image_name,comment_number,comment\na.png,0,A dog , here .\na.png,1,Two\n"
            'b.png,0,"Three"\n',
        ),
        ("captions.txt", "a.png,0,A dog , here .\na.png,1,Two\nb.png,0,Three\n"),
        ("results.csv", "a.png|A dog , here .\na.png|Two\nb.png|Three\n"),
        ("captions.json", '{"a.png": ["A dog , here .", "Two"], "b.png": ["Three"]}'),
    ],
)
def test_flickrs_forms_of_captions(name: str, text: str, tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    write(tmp_path / name, text)
    for spec in (f"flickr:{tmp_path / name}", f"flickr:{tmp_path}"):
        assert [(item.id, item.text) for item in open_data(spec)] == [
            ("a.png#0", "A dog , here ."),
            ("a.png#1", "Two"),
            ("b.png#0", "Three"),
        ]
    assert open_data(spec)[0].source == str(tmp_path / "images" / "a.png")


def test_quotes_and_line_breaks_in_captions(tmp_path: Path) -> None:
    lines = [
        "image,caption",
        'a.png,"A dog runs',
        'a.png,"""Stop"", she says"',
        'a.png,"Stop" , she says',
        'a.png,"A dog,\nin two lines"',
        "a.png,2, or 3 dogs",
        'b.png,A 5" ruler',
        '"c.png","Three"',
    ]
    file = write(tmp_path / "captions.txt", "\n".join(lines))
    assert [(item.id, item.text) for item in open_data(f"flickr:{file}")] == [
        ("a.png#0", '"A dog runs'),
        ("a.png#1", '"Stop", she says'),
        ("a.png#2", '"Stop" , she says'),
        ("a.png#3", "A dog, in two lines"),
        ("a.png#4", "2, or 3 dogs"),
        ("b.png#0", 'A 5" ruler'),
        ("c.png#0", "Three"),
    ]


def test_hugging_faces_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "caption": datasets.Value("string"),
        }
    )
    values = {"image": [Image.fromarray(p) for p in pixels], "label": [1, 0]}
    table = datasets.Dataset.from_dict(values | {"caption": ["a", "b"]}, features=features)
    table.save_to_disk(str(tmp_path / "saved"))
    data = open_data(f"hf:{tmp_path}/saved")
    assert [(item.id, item.labels, item.text) for item in data] == [
        ("0", ("dog",), "a"),
        ("1", ("cat",), "b"),
    ]
    assert (data[1].read(None).pixels == pixels[1]).all()
    assert open_data(f"hf:{tmp_path}/saved").fingerprint == data.fingerprint
    table.select([1, 0]).save_to_disk(str(tmp_path / "other"))
    assert open_data(f"hf:{tmp_path}/other").fingerprint != data.fingerprint
    with pytest.raises(InputError, match="no column 'captain'; nearest: caption"):
        open_data(f"hf:{tmp_path}/saved?text=captain")
    both = datasets.DatasetDict({"train": table, "test": table})
    both.save_to_disk(str(tmp_path / "both"))
    assert len(open_data(f"hf:{tmp_path}/both?split=test")) == 2
    with pytest.raises(InputError, match="train, test; name one"):
        open_data(f"hf:{tmp_path}/both")
    with pytest.raises(InputError, match="cannot be loaded"):
        open_data(f"hf:{tmp_path}/nowhere")


@pytest.mark.parametrize("many", [False, True])
def test_a_hidden_label_of_hugging_face_is_no_label(many: bool, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["cat", "dog"])
    features = {"path": datasets.Value("string"), "label": names}
    labels = {"path": datasets.Value("string"), "label": datasets.Value("int64")}
    values: dict[str, list[Any]] = {"path": ["a.png", "b.png", "c.png"], "label": [-1, 1, 7]}
    if many:
        features["label"], labels["label"] = ([column["label"]] for column in (features, labels))
        values["label"] = [[-1], [1, -1], [7]]
    table = datasets.Dataset.from_dict(values, features=datasets.Features(labels))
    table.cast(datasets.Features(features)).save_to_disk(str(tmp_path / "saved"))
    data = open_data(f"hf:{tmp_path}/saved")
    assert [data[n].labels for n in range(2)] == [(), ("dog",)]
    with pytest.raises(InputError, match=r"row 2: \[?7\]? in the column 'label' is not a class"):
        data[2]


def test_another_revision_of_a_hugging_face_dataset_is_another_dataset(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    fingerprints = []
    for caption in ("a dog", "a dog", "a cat"):
        file = tmp_path / "rows" / "test.csv"
        if not file.exists() or caption not in file.read_text():
            write(file, f"image,caption\nx.png,{caption}\n")
        fingerprints.append(open_data(f"hf:{tmp_path}/rows?split=test").fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_without_its_library_hugging_face_names_the_install_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mmcam\[datasets\]'"):
        open_data("hf:beans")


def test_broken_lists_name_their_own_file(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.csv", "")
    with pytest.raises(InputError, match=r"empty\.csv"):
        open_data(f"kinetics:{empty}")
    bare = write(tmp_path / "bare.csv", "label,youtube_id\njump,abc\n")
    with pytest.raises(InputError, match="no column time_end or time_start"):
        open_data(f"kinetics:{bare}")
    short = write(tmp_path / "short.csv", "label,youtube_id,time_start,time_end\njump,abc\n")
    with pytest.raises(InputError, match=r"clip abc: the seconds \['', ''\] are not numbers"):
        open_data(f"kinetics:{short}")[0]
    with pytest.raises(InputError, match="no column split"):
        open_data(f"kinetics:{short}?split=val")
    write(tmp_path / "coco/annotations/captions_a.json", {"annotations": []})
    with pytest.raises(InputError, match=r"captions_a\.json"):
        open_data(f"coco:{tmp_path / 'coco'}?split=a", "caption")
    question = {"question_id": 1, "image_id": 2, "question": "what?"}
    write(tmp_path / "vqa/questions.json", {"questions": [question]})
    write(tmp_path / "vqa/annotations.json", {"annotations": [{"question_id": 1}]})
    with pytest.raises(InputError, match=r"annotations\.json is not a VQA file"):
        open_data(f"vqa:{tmp_path / 'vqa'}")
