"""The page as a text: its content, its size, and the escaping of hostile texts."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmcam.explanations import Explanations
from mmcam.media import open_clip
from mmcam.page import image_preview, notebook, page, record
from mmcam.page.html import SCRIPTS, csp_hash, read_json, to_json
from mmcam.page.previews import clip_preview, original_box, shrink_uri
from mmcam.page.record import evidence_curve, json_number, quantise
from mmcam.render.inline import as_jpeg
from mmcam.results import drawing as draw
from mmcam.types import Placement
from tests.page.results import (
    HOSTILE,
    answers,
    caption,
    caption_facts,
    classes,
    clip,
    make_explanations,
    page_of,
    pixels,
    twelve_words,
)


class Elements(HTMLParser):
    """The elements of a page as a browser parses them, and the texts inside them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.start_tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.start_tags.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.start_tags]

    def text_of(self, tag: str, **wanted: str) -> str:
        return next(
            text
            for (name, attributes), text in zip(self.start_tags, self.texts, strict=True)
            if name == tag and wanted.items() <= attributes.items()
        )


def saved(explanations: Explanations, folder: Path, **options: Any) -> str:
    explanations.save(folder, **options)
    return (folder / "index.html").read_text(encoding="utf-8")


def test_the_page_is_written_last(tmp_path: Path) -> None:
    written = make_explanations(["dog"], pixels()).save(tmp_path)
    assert written[-1] == tmp_path / "index.html"
    assert all(path.is_file() for path in written)


@pytest.mark.parametrize("name", ["a", "b", "c", "deep/d"])
def test_every_task_has_its_page(name: str, results: Path) -> None:
    content = read_json((results / name / "index.html").read_text(encoding="utf-8"), "record-0")
    facts = json.loads((results / name / "explanation.json").read_text(encoding="utf-8"))
    assert content["task"] == facts["task"]
    assert content["model"] == facts["model"]["name"]
    for target, known in zip(content["targets"], facts["targets"], strict=True):
        for key in ("label", "kind", "position", "method", "layer", "empty"):
            assert target[key] == known[key]
        assert target["score"] == pytest.approx(known["score"], rel=1e-5)
        assert target["probability"] == pytest.approx(known["probability"], rel=1e-5)


@pytest.mark.parametrize("make", [classes, clip])
def test_the_policy_names_the_style_and_the_script_by_their_hashes(
    make: Any,
) -> None:
    elements = Elements(page_of(make()))
    policy = next(a["content"] for t, a in elements.start_tags if t == "meta" and "content" in a)
    rules = dict(rule.split(" ", 1) for rule in (policy or "").split("; "))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data: 'self'",
        "media-src": "'self'",
        "style-src": f"'{csp_hash(elements.text_of('style'))}'",
        "script-src": f"'{csp_hash(elements.texts[elements.start_tags.index(('script', {}))])}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_nothing_in_the_page_comes_from_elsewhere(tmp_path: Path) -> None:
    text = saved(classes(), tmp_path)
    elements = Elements(text)
    assert elements.tags().count("style") == 1
    assert [a for t, a in elements.start_tags if t == "script"] == [
        {"type": "application/json", "id": "head"},
        {"type": "application/json", "id": "record-0"},
        {},
    ]
    for _, attributes in elements.start_tags:
        assert not {"src", "href", "style", "srcdoc"} & attributes.keys()
        assert not [key for key in attributes if key.startswith("on")]
    addresses = set(re.findall(r"https?://[^\s\"')]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place


def test_the_script_makes_elements_of_texts_only() -> None:
    folder = files("mmcam.page").joinpath("static")
    names = {entry.name for entry in folder.iterdir() if entry.name.endswith(".js")}
    assert names == set(SCRIPTS)
    for name in names:
        code = folder.joinpath(name).read_text(encoding="utf-8")
        for call in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert call not in code, name
        assert "</script" not in code
        assert "<!--" not in code


@given(st.recursive(st.text() | st.sampled_from(HOSTILE), lambda inner: st.lists(inner)))
def test_json_cannot_end_its_element_and_comes_back_as_it_was(value: Any) -> None:
    text = to_json(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert text.isascii()
    assert json.loads(text) == value


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts(text: str, tmp_path: Path) -> None:
    plain = Elements(saved(make_explanations(["dog"], pixels()), tmp_path / "plain")).tags()
    named = make_explanations(
        [text, text],
        pixels(),
        kinds=["sentence", "word"],
        text=caption_facts([text]),
        file=f"{text.replace('/', '')}.jpg",
        words=[(text, 1.0)],
    )
    elements = Elements(saved(named, tmp_path / "out", command=[text]))
    assert elements.tags() == plain
    content = json.loads(elements.text_of("script", id="record-0"))
    assert [target["label"] for target in content["targets"]] == [text, text]
    assert content["text"]["caption"] == content["text"]["words"][0]["text"] == text
    assert content["file"] == f"{text.replace('/', '')}.jpg"
    assert content["targets"][0]["words"] == [[text, 1.0]]
    assert ["command", text] in content["record"]
    assert elements.text_of("title") == text


def test_a_word_without_a_number_has_no_probability(tmp_path: Path) -> None:
    facts = caption_facts(["dog"])
    facts["words"][0]["log_prob"] = float("nan")
    page = Elements(saved(make_explanations(["dog"], pixels(), text=facts), tmp_path))
    content = json.loads(page.text_of("script", id="record-0"))
    assert content["text"]["words"][0]["probability"] is None


def test_a_page_does_not_say_in_whose_folders_files_lay(tmp_path: Path) -> None:
    command = ["/usr/bin/mmcam", "classify", "C:\\photos\\a dog.jpg", "--out=/srv/runs/1"]
    explanations = make_explanations(["dog"], pixels(), file="/srv/photos/a dog.jpg")
    page = Elements(saved(explanations, tmp_path, command=command))
    rows = dict(json.loads(page.text_of("script", id="record-0"))["record"])
    assert rows["command"] == "mmcam classify a dog.jpg --out=1"
    assert rows["file"] == "a dog.jpg"
    facts = json.loads((tmp_path / "explanation.json").read_text())
    assert facts["command"] == command


def test_a_label_that_is_no_unicode_is_written(tmp_path: Path) -> None:
    text = saved(make_explanations(["\udce9 half a pair"], pixels(), file="\udce9.jpg"), tmp_path)
    assert read_json(text, "record-0")["targets"][0]["label"] == "\udce9 half a pair"


def photo(height: int, width: int) -> np.ndarray:
    """An array with the statistics of a photo: noise of all scales, weaker at finer scales."""
    random = np.random.default_rng(0)
    noise = np.zeros((height, width, 3))
    for step in (2, 4, 8, 16, 32, 64, 128, 256):
        small = random.normal(size=(height // step + 1, width // step + 1, 3))
        image = [
            np.asarray(Image.fromarray(small[..., c].astype(np.float32)).resize((width, height)))
            for c in range(3)
        ]
        noise += step**0.8 * np.stack(image, -1)
    noise = 128 + 45 * noise / noise.std()
    return noise.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [False, True])
def test_twelve_words_of_a_megapixel_are_under_a_megabyte(noise: bool) -> None:
    shown = pixels(800, 1250) if noise else photo(800, 1250)
    text = page_of(twelve_words(shown))
    assert len(text) < 1_000_000
    assert text.count("data:image/jpeg") == 1
    content = read_json(text, "record-0")
    assert len(content["targets"]) == 13
    _, encoded = content["seen"]["picture"].split(",")
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (1250, 800)


def test_a_large_picture_is_scaled_down_and_a_small_one_is_not() -> None:
    def size(height: int, width: int) -> tuple[int, int]:
        uri = image_preview(np.zeros((height, width, 3), np.uint8))["picture"]
        return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size

    assert size(2000, 4000) == (1600, 800)
    assert size(30, 40) == (40, 30)


@given(st.integers(0, 2**32 - 1), st.floats(1e-12, 1e12))
def test_a_quantised_map_comes_back_to_half_a_step(seed: int, scale: float) -> None:
    cam = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed)) * scale
    most = max(float(cam.max()), 0.0)
    back = quantise(cam, most).astype(np.float64) / 255
    shares = (cam.clamp(min=0) / (most or 1)).double().numpy()
    assert np.abs(back - shares).max() <= 0.5 / 255 + 1e-6


def test_maps_in_the_page_are_the_maps() -> None:
    explanations = classes(method="gradcam")
    content = read_json(page_of(explanations), "record-0")
    for target, item in zip(content["targets"], explanations, strict=True):
        raw = np.frombuffer(base64.b64decode(target["map"]), np.uint8).reshape(target["grid"])
        shares = (item.cam.clamp(min=0) / (item.maximum or 1)).numpy()
        assert np.abs(raw / 255 - shares).max() <= 1 / 255
        assert target["box"] == list(item.placement.box)
        assert target["maximum"] == item.maximum
    assert [target["empty"] for target in content["targets"]] == [False, False, True]


def test_a_gradient_is_a_picture_of_its_own_size() -> None:
    explanations = classes(method="guided")
    content = read_json(page_of(explanations), "record-0")
    for target, item in zip(content["targets"], explanations, strict=True):
        kind, encoded = target["pixels"].split(",")
        assert kind == "data:image/png;base64"
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        assert drawn.shape == (*item.cam.shape[1:], 3)
        np.testing.assert_array_equal(drawn, draw.gradient_picture(item.cam.numpy()))
        assert "map" not in target


def test_a_clips_gradient_is_shown_in_cells() -> None:
    explanations = clip(method="gradient")
    content = read_json(page_of(explanations), "record-0")
    for target, item in zip(content["targets"], explanations, strict=True):
        assert target["grid"] == [item.saliency.shape[0], 48, 64]
        raw = np.frombuffer(base64.b64decode(target["map"]), np.uint8)
        assert raw.max() == (0 if item.empty else 255)


def test_evidence_over_time_follows_the_slices() -> None:
    explanations = clip()
    for item in explanations:
        curve = evidence_curve(item, item.frame_count)
        frames, values = zip(*curve, strict=True)
        assert list(frames) == list(range(item.frame_count))
        from_heat = item.heatmap().mean((1, 2)) * item.maximum
        np.testing.assert_allclose(values, from_heat, atol=1e-4 * (item.maximum or 1))
    assert evidence_curve(explanations[0], 40)[-1] == [39, None]  # no window reaches there
    assert len(evidence_curve(explanations[0], 5000)) == 240


@pytest.mark.parametrize(
    "panes",
    [
        ["original", "overlay", "explanation"],
        ["overlay", "original"],
        ["original"],
        ["explanation", "overlay", "original"],
    ],
)
@pytest.mark.parametrize("size", [(240, 320), (31, 45)])
def test_the_original_is_found_in_a_written_clip(panes: list[str], size: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    frames = random.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    item = clip()[0]
    box = (0.0, 0.0, float(size[1]), float(size[0]))
    item = replace(item, placement=Placement(size=size, box=box, spans=item.placement.spans))
    pane = original_box(panes, *size)
    assert pane is not None
    left, top, width, height = pane
    with open_clip(frames) as opened:
        drawn = list(draw.draw_frames(item, opened, panes))
    for frame, picture in zip(frames, drawn, strict=True):
        np.testing.assert_array_equal(picture[top : top + height, left : left + width], frame)


def test_a_clip_without_its_original_has_no_such_place() -> None:
    with open_clip(np.zeros((3, 20, 30, 3), np.uint8)) as opened:
        assert clip_preview(opened, ["overlay"])["player"] == {"box": None}


def test_a_clip_is_stood_for_by_frames_spread_over_it(results: Path) -> None:
    content = read_json((results / "deep/d/index.html").read_text(encoding="utf-8"), "record-0")
    numbers = [frame["frame"] for frame in content["seen"]["frames"]]
    assert numbers == [(2 * i + 1) * 32 // 24 for i in range(12)]
    assert (content["frames"], content["fps"], content["size"]) == (32, 25.0, [240, 320])
    for target in content["targets"]:
        assert (results / "deep/d" / target["clip"]).is_file()


def test_a_notebook_shows_the_same_page(tmp_path: Path) -> None:
    explanations = answers()
    (frame,) = Elements(explanations._repr_html_()).start_tags
    assert frame[0] == "iframe"
    assert frame[1]["sandbox"] == "allow-scripts"
    inside = read_json(frame[1]["srcdoc"] or "", "record-0")
    saved_record = read_json(saved(explanations, tmp_path), "record-0")
    assert inside["targets"] == saved_record["targets"]
    assert inside["seen"] == saved_record["seen"]


def test_a_notebook_has_no_file_to_play() -> None:
    (frame,) = Elements(clip()._repr_html_()).start_tags
    preview = read_json(frame[1]["srcdoc"] or "", "record-0")["seen"]
    assert preview["player"] is None
    assert len(preview["frames"]) == 12


def test_one_map_in_a_notebook_is_a_picture_and_its_facts() -> None:
    text = HOSTILE[0]
    (item,) = make_explanations([text], pixels(480, 600), box=(60.0, 0.0, 540.0, 480.0))
    elements = Elements(item._repr_html_())
    assert elements.tags() == ["figure", "img", "figcaption", "strong", "br"]
    assert elements.text_of("strong") == text
    assert "gradcam at trunk · score -1.5 · probability 0.5000" in elements.texts[-1]
    source = elements.start_tags[1][1]["src"] or ""
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
    assert drawn.shape == (256, 320, 3)
    heat = item.heatmap()
    seen_part = drawn[:, 40:280].sum(-1)
    peak = np.unravel_index(seen_part.argmax(), seen_part.shape)
    expected = np.unravel_index(np.nan_to_num(heat).argmax(), heat.shape)
    assert abs(peak[0] / 256 - expected[0] / 480) < 0.1
    assert abs((peak[1] + 40) / 320 - expected[1] / 600) < 0.1


@pytest.mark.parametrize("make", [classes, clip, caption])
def test_every_kind_of_map_has_its_card(make: Any) -> None:
    for item in make():
        elements = Elements(item._repr_html_())
        assert ("no positive evidence" in elements.texts[-1]) == item.empty


def test_numbers_that_json_lacks_are_left_out(tmp_path: Path) -> None:
    assert [json_number(value) for value in (None, float("nan"), float("inf"), 1 / 3)] == [
        None, None, None, 0.333333,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="JSON"):
        to_json(float("nan"))


def test_the_colour_map_of_the_page_can_be_selected(tmp_path: Path) -> None:
    head = read_json(saved(classes(), tmp_path, colormap="turbo"), "head")
    assert head["colormap"] == "turbo"
    assert head["colormaps"] == ["inferno", "viridis", "jet", "turbo"]
    for table in head["tables"].values():
        assert len(base64.b64decode(table)) == 3 * 257


def test_a_broken_picture_is_an_error() -> None:
    assert shrink_uri(as_jpeg(pixels(), 1600, 10**6), 30, 10**6).startswith("data:image/jpeg")
    for uri in ("data:image/jpeg;base64,AAAA", "javascript:alert(1)", "data:image/svg+xml,<svg/>"):
        with pytest.raises(ValueError):  # noqa: PT011 - decoders say it each in their own words
            shrink_uri(uri, 30, 1000)


def test_the_title_is_the_caption_or_the_question_or_the_file() -> None:
    titles = {
        "a dog runs": caption(),
        "What color is the dog?": answers(),
        "photo.jpg": make_explanations(["dog"], pixels()),
    }
    for title, explanations in titles.items():
        assert Elements(page_of(explanations)).text_of("title") == title


def test_a_page_is_escaped_where_it_is_a_value(tmp_path: Path) -> None:
    facts = record(_facts(tmp_path), make_explanations(["dog"], pixels()), image_preview(pixels()))
    facts["title"] = '"><script>alert(1)</script>'
    assert [tag for tag, _ in Elements(notebook(facts)).start_tags] == ["iframe"]
    assert Elements(page(facts)).text_of("title") == facts["title"]


def _facts(folder: Path) -> dict[str, Any]:
    make_explanations(["dog"], pixels()).save(folder)
    facts: dict[str, Any] = json.loads((folder / "explanation.json").read_text())
    return facts
