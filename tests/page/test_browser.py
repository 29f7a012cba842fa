"""The page in a browser without network access."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmcam.page import gallery, gallery_page, write_page
from mmcam.page.html import read_json
from tests import colour_net
from tests.page.looking import alphas, expected, until
from tests.page.results import (
    HOSTILE,
    caption_facts,
    classes,
    clip,
    make_explanations,
    page_of,
    pixels,
)

pytestmark = pytest.mark.browser


def test_the_map_drawn_is_the_map(results: Path, opened: Any) -> None:
    page = opened(results / "a" / "index.html")
    for item in classes(method="gradcam"):
        page.get_by_role("tab", name=item.label).click()
        drawn = alphas(page)
        assert drawn.shape == (384, 512)
        assert np.abs(drawn - expected(item, drawn.shape)).max() <= 2
    page.get_by_role("tab", name="red").click()
    page.get_by_label("Smooth between the cells").uncheck()
    raw = alphas(page)
    item = classes(method="gradcam")[0]
    whole = replace(item, placement=replace(item.placement, extent=()))
    cells = expected(whole, tuple(item.cam.shape))
    extent = item.placement.extent or ((0, 1), (0, 1))
    rows, columns = (
        nearest_cells(drawn.shape[axis], cells.shape[axis], *extent[axis]) for axis in (0, 1)
    )
    assert np.abs(raw - cells[rows][:, columns]).max() <= 2


def nearest_cells(pixels: int, cells: int, first: float, last: float) -> np.ndarray:
    """The cell nearest to each pixel, where the cells cover [first, last] of the pixels."""
    centres = (np.arange(pixels) + 0.5) / pixels
    return np.floor((centres - first) / (last - first) * cells).clip(0, cells - 1).astype(int)


def test_pointing_at_a_word_shows_its_map_and_leaving_gives_the_chosen_one_back(
    results: Path, opened: Any
) -> None:
    page = opened(results / "b" / "index.html")
    whole = alphas(page)
    page.locator(".word", has_text="dog").hover()
    dog = alphas(page)
    assert np.abs(dog - whole).max() > 20
    assert "dog" in page.locator(".facts").inner_text()
    page.locator(".word", has_text="runs").hover()
    assert np.abs(alphas(page) - dog).max() > 20
    page.mouse.move(5, 5)
    np.testing.assert_array_equal(alphas(page), whole)
    page.locator(".word", has_text="dog").click()
    page.mouse.move(5, 5)
    np.testing.assert_array_equal(alphas(page), dog)
    probabilities = page.locator(".word .note").all_inner_texts()
    assert len(probabilities) == 3
    assert all(text.endswith("%") for text in probabilities)


def test_the_keyboard_alone_suffices_for_a_caption(results: Path, opened: Any) -> None:
    page = opened(results / "b" / "index.html")
    labels = []
    for _ in range(3):
        page.keyboard.press("Tab")
        labels.append(page.locator(".facts strong").inner_text())
    assert labels == ["a", "dog", "runs"]
    page.keyboard.press("p")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("p")
    assert page.locator(".pinned figure strong").all_inner_texts() == ["runs", "dog"]
    page.keyboard.press("p")
    assert page.locator(".pinned figure strong").all_inner_texts() == ["runs"]
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "() => { const e = document.activeElement;"
                "return (e.labels && e.labels[0] ? e.labels[0] : e).textContent; }"
            )
        )
    for control in ("Whole sentence", "One map", "Opacity", "Colours", "Smooth between the cells"):
        assert control in reached
    assert any(text.startswith("All numbers") for text in reached)


def test_tabs_answer_to_arrows_and_the_question_is_shaded(results: Path, opened: Any) -> None:
    page = opened(results / "c" / "index.html")
    tabs = page.get_by_role("tab")
    assert tabs.count() == 3
    first = alphas(page)
    tabs.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert tabs.nth(1).get_attribute("aria-selected") == "true"
    assert page.evaluate("document.activeElement.textContent").startswith("yellow")
    assert np.abs(alphas(page) - first).max() > 20
    page.keyboard.press("End")
    assert page.locator(".facts strong").inner_text() == "yellow and red"
    page.keyboard.press("ArrowRight")
    np.testing.assert_array_equal(alphas(page), first)
    assert page.locator("h1").inner_text() == "What color is the dog?"
    shaded = page.locator("h1 .shaded").all_inner_texts()
    assert [word.lower() for word in shaded] == ["what", "color", "is", "the", "dog", "?"]
    strongest = page.eval_on_selector_all(
        "h1 .shaded", "all => Math.max(...all.map(e => Number(e.style.getPropertyValue('--part'))))"
    )
    assert strongest == pytest.approx(1)


def test_answers_stand_side_by_side_and_differ(results: Path, opened: Any) -> None:
    page = opened(results / "c" / "index.html")
    page.get_by_text("Side by side").click()
    names = page.locator(".sheet figcaption strong").all_inner_texts()
    assert names == ["red", "yellow", "yellow and red"]
    drawn = [alphas(page, f".sheet figure:nth-child({i}) canvas") for i in (1, 2, 3)]
    assert np.abs(drawn[0] - drawn[1]).max() > 20
    page.get_by_text("Difference").click()
    assert "red minus yellow" in page.locator(".facts").inner_text()
    there = alphas(page)
    assert there.max() == pytest.approx(255 * 0.55, abs=2)
    page.get_by_label("minus").select_option("2")
    assert "red minus yellow and red" in page.locator(".facts").inner_text()
    assert np.abs(alphas(page) - there).max() > 20
    page.get_by_label("minus").select_option("0")
    assert alphas(page).max() == 0


def test_methods_and_layers_are_switched(results: Path, opened: Any) -> None:
    page = opened(results / "a" / "index.html")
    assert "gradcam at trunk" in page.locator(".facts").inner_text()
    assert page.locator(".stage.large .gradient").is_hidden()
    page.get_by_label("Method", exact=True).select_option("guided")
    assert page.locator(".stage.large .gradient").is_visible()
    assert page.locator(".stage.large canvas").is_hidden()
    assert page.get_by_label("Opacity").is_hidden()
    page.get_by_text("All methods").click()
    captions = page.locator(".sheet figcaption .quiet").all_inner_texts()
    assert [text.split(" · ")[1].split(" at ")[0] for text in captions] == [
        "gradcam", "gradcam++", "guided",
    ]  # fmt: skip


def test_controls_change_the_drawing(results: Path, opened: Any) -> None:
    page = opened(results / "a" / "index.html")
    colour = (
        "c => Array.from(c.getContext('2d').getImageData(c.width / 3, c.height / 3, 1, 1).data)"
    )
    colours = []
    for name in ("inferno", "viridis", "jet"):
        page.get_by_label("Colours").select_option(name)
        colours.append(tuple(page.eval_on_selector(".stage.large canvas", colour)[:3]))
    assert len(set(colours)) == 3
    page.get_by_label("Opacity").fill("1")
    assert alphas(page).max() == pytest.approx(255, abs=2)
    page.get_by_label("Opacity").fill("0")
    assert alphas(page).max() == 0
    page.get_by_label("Show the map").uncheck()
    assert page.locator(".stage.large canvas").is_hidden()


def test_no_evidence_and_counterfactuals_have_a_notice(
    results: Path, opened: Any, tmp_path: Path
) -> None:
    page = opened(results / "a" / "index.html")
    assert page.locator(".notice").is_hidden()
    page.get_by_role("tab", name="green").click()
    assert "No positive evidence" in page.locator(".notice").inner_text()
    assert "No positive evidence" in page.locator(".stage.large").get_attribute("aria-label")
    explanations = make_explanations(["dog", "cat"], pixels())
    empty = replace(explanations[1], cam=-torch.ones(3, 3))
    items = tuple(replace(e, counterfactual=True) for e in (explanations[0], empty))
    replace(explanations, items=items).save(tmp_path)
    page = opened(tmp_path / "index.html")
    assert page.get_by_role("tab").first.inner_text().startswith("against dog")
    assert "shows the evidence against “dog”" in page.locator(".notice").inner_text()
    page.get_by_text("Side by side").click()
    assert "no positive evidence" in page.locator(".sheet").inner_text()


def test_the_margins_outside_the_model_input_are_hatched(
    results: Path, opened: Any, tmp_path: Path
) -> None:
    page = opened(results / "a" / "index.html")
    assert page.locator(".stage.large .unseen").is_hidden()
    white = np.full((100, 200, 3), 255, np.uint8)
    make_explanations(["dog"], white, box=(50.0, 0.0, 150.0, 100.0)).save(tmp_path)
    page = opened(tmp_path / "index.html")
    page.get_by_label("Show the map").uncheck()
    shot = page.locator(".stage.large").screenshot()
    grey = np.asarray(Image.open(io.BytesIO(shot)).convert("L"), np.float64)
    columns = grey[10:-10].mean(0) / 255
    quarter = len(columns) // 4
    assert columns[8 : quarter - 8].max() < 0.75
    assert columns[-quarter + 8 : -8].max() < 0.75
    assert columns[quarter + 8 : -quarter - 8].min() > 0.99
    assert grey[10:-10, 8 : quarter - 8].std() > 5  # lines, not a plain grey
    assert page.get_by_text("outside the model input").is_visible()


def frame_of(page: Any) -> int:
    return int(page.get_by_label("Frame", exact=True).input_value())


def test_a_clip_plays_under_its_map(results: Path, opened: Any) -> None:
    page = opened(results / "deep" / "d" / "index.html")
    item = clip()[0]
    until(page, "!document.querySelector('video').hidden")
    assert frame_of(page) == item.peak().frame
    for frame in (0, 7, 18, 31):
        page.get_by_label("Frame", exact=True).fill(str(frame))
        drawn = alphas(page)
        assert np.abs(drawn - expected(item, drawn.shape, frame)).max() <= 2
    page.get_by_label("Frame", exact=True).fill("0")
    page.get_by_role("button", name="Play").click()
    until(page, "Number(document.querySelector('.transport input').value) > 8")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Jump to the peak").click()
    assert frame_of(page) == item.peak().frame
    # Only the original pane is visible, and it shows the frame of the clip.
    page.get_by_label("Show the map").uncheck()
    page.get_by_label("Frame", exact=True).fill("3")
    until(page, "!document.querySelector('video').seeking")
    page.wait_for_timeout(200)
    shot = Image.open(io.BytesIO(page.locator(".stage.large").screenshot())).convert("RGB")
    shown = np.asarray(shot.resize((320, 240)), np.float64)
    true = colour_net.clip()[3].astype(np.float64)
    assert np.abs(shown - true)[5:-5, 5:-5].mean() < 6


def test_a_clip_that_cannot_be_played_is_shown_by_its_frames(
    results: Path, opened: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(results / "deep" / "d", folder, ignore=shutil.ignore_patterns("*.mp4"))
    page = opened(folder / "index.html", missing=".mp4")
    page.get_by_text("cannot be played here").wait_for()
    assert page.get_by_role("button", name="Play").is_hidden()
    first = page.locator(".photo").get_attribute("src")
    page.get_by_label("Frame", exact=True).fill("0")
    assert page.locator(".photo").get_attribute("src") != first
    assert frame_of(page) == 1  # the first embedded frame


def test_the_strip_leads_to_its_time_and_the_curve_is_that_of_the_label(
    results: Path, opened: Any
) -> None:
    page = opened(results / "deep" / "d" / "index.html")
    until(page, "!document.querySelector('video').hidden")
    page.locator(".strip").scroll_into_view_if_needed()
    box = page.locator(".strip").bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 5)
    assert frame_of(page) == 24
    line = page.locator(".curve .line").get_attribute("d")
    assert "the map peaks at" in page.locator(".curve").get_attribute("aria-label")
    page.get_by_role("tab", name="green moves").click()
    assert page.locator(".curve .line").get_attribute("d") != line
    assert "no positive evidence" in page.locator(".curve").get_attribute("aria-label")
    assert page.get_by_role("button", name="Jump to the peak").is_disabled()


def test_hostile_texts_are_shown_as_texts(opened: Any, tmp_path: Path) -> None:
    for i, text in enumerate(HOSTILE):
        folder = tmp_path / str(i)
        name = text.replace("/", "")
        explanations = make_explanations(
            [text, text], pixels(), kinds=["sentence", "word"], text=caption_facts([text]),
            file=f"{name}.jpg", words=[(text, 1.0)],
        )  # fmt: skip
        explanations.save(folder)
        page = opened(folder / "index.html")
        assert page.locator(".word .text").text_content() == text
        assert page.locator("h1").text_content() == text
        assert page.locator(".eyebrow bdi").text_content() == f"{name}.jpg"
        assert page.locator("main script, main b, main img[src=x]").count() == 0
    write_page(tmp_path / "all.html", gallery([tmp_path], tmp_path / "all.html"))
    page = opened(tmp_path / "all.html")
    labels = page.locator(".cards strong").all_text_contents()
    assert labels == [label for text in HOSTILE for label in ("whole sentence", text)]
    page.get_by_label("Label").select_option(label=HOSTILE[0])
    assert page.locator(".cards li").count() == 2


@pytest.fixture(scope="module")
def two_hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of 200 explanations of 100 pictures."""
    folder = tmp_path_factory.mktemp("many")
    records = []
    for number in range(100):
        shown = np.random.default_rng(number).integers(0, 256, (15, 20, 3), dtype=np.uint8)
        shown = np.asarray(Image.fromarray(shown).resize((560, 420)))
        labels = ["dog", "cat"] if number % 4 else ["hen", "fox"]
        explanations = make_explanations(labels, shown, file=f"{number:03d}.jpg")
        records.append(read_json(page_of(explanations), "record-0"))
    write_page(folder / "gallery.html", gallery_page(records, "200 explanations"))
    return folder / "gallery.html"


def test_a_gallery_of_200_is_there_at_once_and_scrolls(two_hundred: Path, opened: Any) -> None:
    page = opened(two_hundred)
    until(page, "document.querySelectorAll('.cards canvas').length >= 4")
    assert page.evaluate("performance.now()") < 2000  # milliseconds since the navigation started
    assert page.locator(".cards li").count() == 200
    # The other cards are drawn when they scroll into view.
    assert page.locator(".cards .stage").count() < 100
    times = page.evaluate(
        """async () => {
          const times = [];
          for (let last = performance.now(), y = 0; y < document.body.scrollHeight; y += 100) {
            scrollTo(0, y);
            await new Promise(requestAnimationFrame);
            times.push(performance.now() - last);
            last = performance.now();
          }
          return times;
        }"""
    )
    assert np.median(times) < 50
    until(page, "document.querySelectorAll('.cards .stage').length === 200")


def test_a_gallery_is_searched_sorted_and_opened(two_hundred: Path, opened: Any) -> None:
    page = opened(two_hundred)
    shown = page.locator(".cards strong")
    page.get_by_label("Find").fill("fo")
    assert set(shown.all_text_contents()) == {"fox"}
    assert page.locator("header .quiet").inner_text() == "25 of 200 maps"
    page.get_by_label("Find").fill("")
    page.get_by_label("Label").select_option(label="hen")
    assert set(shown.all_text_contents()) == {"hen"}
    page.get_by_label("Label").select_option(label="all labels")
    page.get_by_label("Order").select_option(label="score, highest first")
    scores = [label in ("cat", "fox") for label in shown.all_text_contents()]
    assert scores == sorted(scores, reverse=True)
    assert scores[0]
    page.get_by_label("Order").select_option(label="label")
    assert shown.all_text_contents() == sorted(shown.all_text_contents())
    card = page.locator(".cards button").nth(0)
    card.focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").is_visible()
    assert page.get_by_role("tab", name="cat").get_attribute("aria-selected") == "true"
    assert alphas(page, "dialog .stage.large canvas").max() > 100
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").is_hidden()
    assert card.evaluate("card => card === document.activeElement")


def test_a_notebooks_frame_works(opened: Any, tmp_path: Path) -> None:
    explanations = classes(method="gradcam")
    (tmp_path / "notebook.html").write_text(
        "<!doctype html><meta charset=utf-8>"
        f"{explanations._repr_html_()}{explanations[0]._repr_html_()}",
        encoding="utf-8",
    )
    page = opened(tmp_path / "notebook.html")
    frame = page.frame_locator("iframe")
    frame.get_by_role("tab", name="green").click()
    assert "No positive evidence" in frame.locator(".notice").inner_text()
    assert page.locator("figure img").evaluate("image => image.naturalWidth") == 320
