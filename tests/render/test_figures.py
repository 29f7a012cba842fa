from __future__ import annotations

import jaxtyping
import numpy as np
import pytest

from mmcam.errors import InputError
from mmcam.render.figures import caption_bar, panes, sheet
from mmcam.render.text import BACKGROUND, fit_text, one_line

TEXTS = [
    "",
    " ",
    "dog",
    "a dog " * 400,
    "x" * 100_000,
    "two\nlines\tand \x00 nothing \ud800 \u2028",
    "naïve café → 3 ≤ 4",
    "🐶👩‍👩‍👧 🇪🇺",
    "שלום עולם مرحبا",
    "日本の犬",
    "e\u0301\u0301\u0301 \u202e reversed \u200b",
]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the run-time checks of shapes and types, as for a user."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def plain(height: int, width: int, shade: int = 60) -> np.ndarray:
    return np.full((height, width, 3), shade, dtype=np.uint8)


def has_ink(picture: np.ndarray) -> bool:
    return bool((picture != BACKGROUND).any())


@pytest.mark.parametrize("text", TEXTS)
def test_bar_keeps_its_size_whatever_it_says(text: str) -> None:
    empty = caption_bar(320, "")
    for bar in (caption_bar(320, text), caption_bar(320, text, detail=text)):
        assert bar.shape == empty.shape
        assert bar.dtype == np.uint8
        assert has_ink(bar) == bool(text.strip())
    assert empty.shape[0] % 2 == 0


@pytest.mark.parametrize("width", [1, 2, 7, 30, 224, 4000])
def test_bar_of_any_width(width: int) -> None:
    bar = caption_bar(width, "a very long caption", detail="score 1.5")
    assert bar.shape == (*caption_bar(width, "").shape[:1], width, 3)


def test_bar_grows_with_the_picture() -> None:
    heights = [caption_bar(width, "dog").shape[0] for width in (112, 320, 640, 1920)]
    assert heights == sorted(set(heights))


def test_bar_has_its_text_left_and_its_detail_right() -> None:
    assert has_ink(caption_bar(640, "dog")[:, :100])
    assert not has_ink(caption_bar(640, "dog")[:, 320:])
    assert has_ink(caption_bar(640, "", detail="12.5")[:, -100:])
    assert not has_ink(caption_bar(640, "", detail="12.5")[:, :320])


def test_long_text_leaves_room_for_the_detail() -> None:
    with_detail = caption_bar(640, "a dog " * 40, detail="12.5")
    alone = caption_bar(640, "", detail="12.5")
    assert np.array_equal(with_detail[:, -60:], alone[:, -60:])


def test_bar_can_be_written_to_without_harm() -> None:
    caption_bar(100, "dog")[:] = 0
    assert (caption_bar(100, "dog") == BACKGROUND).any()


def test_text_is_shrunk_before_it_is_cut() -> None:
    assert fit_text("a dog", 20, 400)[0] == "a dog"
    full = fit_text("a dog on the floor", 20, 1000)[1].getlength("a dog on the floor")
    text, font = fit_text("a dog on the floor", 20, int(0.9 * full))
    assert text == "a dog on the floor"
    assert font.getlength(text) <= 0.9 * full
    text, font = fit_text("a dog on the floor", 20, int(0.5 * full))
    assert text.endswith("…")
    assert text.startswith("a dog")
    assert font.getlength(text) <= 0.5 * full
    assert fit_text("a dog", 20, 1)[0] == ""
    assert fit_text("a dog", 20, -5)[0] == ""


def test_one_line_drops_breaks_and_keeps_spaces() -> None:
    assert one_line(" a\nb\tc   d\x00\ud800 ") == "a b c   d"


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (47, 63), (48, 64)])
@pytest.mark.parametrize("header", ["", "a long header " * 20])
@pytest.mark.parametrize("title", ["", "a long title " * 20])
def test_panes_are_even(count: int, size: tuple[int, int], header: str, title: str) -> None:
    picture = panes([plain(*size)] * count, [title] * count, header=header)
    assert picture.dtype == np.uint8
    assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0


def test_every_frame_of_a_clip_has_one_size() -> None:
    sizes = {
        panes([plain(31, 41), plain(31, 41, 9)], ["original", text], header=text or " ",
              detail=text).shape
        for text in TEXTS
    }  # fmt: skip
    assert len(sizes) == 1


def test_panes_without_text_golden() -> None:
    frames = [plain(3, 5, 10), plain(3, 5, 200)]
    frames[1][0, 0] = (1, 2, 3)
    shape = (8, 16, 3)  # gaps of 2, and one more row for an even height
    expected = np.full(shape, BACKGROUND, dtype=np.uint8)
    expected[2:5, 2:7], expected[2:5, 9:14] = frames
    assert np.array_equal(panes(frames, ["", ""]), expected)


def test_panes_keep_the_pictures_as_they_are() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 160, 3), dtype=np.uint8)
    picture = panes([plain(40, 160), frame], ["original", "overlay"], header="dog", detail="1.5")
    assert np.array_equal(picture[-42:-2, 164:324], frame) or np.array_equal(
        picture[-43:-3, 164:324], frame
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("frames", "titles", "message"),
    [
        ([], [], r"0 pictures and 0 titles; give"),
        ([plain(4, 4)], ["a", "b"], r"1 pictures and 2 titles; give"),
        ([plain(4, 4), plain(4, 5)], ["", ""], r"\[4 4 3\], another uint8 \[4 5 3\].*resize"),
        ([plain(4, 4) / 255], [""], r"a pane is float64 \[4 4 3\].*uint8"),
        ([plain(4, 4)[..., :2]], [""], r"a pane is uint8 \[4 4 2\].*RGB"),
    ],
)
def test_bad_panes(frames: list[np.ndarray], titles: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        panes(frames, titles)


def test_sheet_golden() -> None:
    tiles = [(plain(10, 20, shade), "", "") for shade in (10, 90, 170)]
    picture = sheet(tiles, columns=2, tile_width=40)
    assert picture.shape == (4 + 2 * (20 + 4), 2 * 44 + 4, 3)
    expected = np.full(picture.shape, BACKGROUND, dtype=np.uint8)
    expected[4:24, 4:44], expected[4:24, 48:88], expected[28:48, 4:44] = 10, 90, 170
    assert np.array_equal(picture, expected)


def test_sheet_keeps_proportions_and_aligns_on_the_titles() -> None:
    tiles = [
        (plain(30, 60, 10), "", ""),
        (plain(60, 60, 90), "", ""),
        (plain(900, 60, 170), "", ""),
    ]
    picture = sheet(tiles, tile_width=60)
    heights = [int((picture == shade).all(axis=2).any(axis=1).sum()) for shade in (10, 90, 170)]
    widths = [int((picture == shade).all(axis=2).any(axis=0).sum()) for shade in (10, 90, 170)]
    assert heights == [30, 60, 80]
    assert widths == [60, 60, 5]
    last = [int(np.flatnonzero((picture == shade).all(axis=2).any(axis=1))[-1])
            for shade in (10, 90, 170)]  # fmt: skip
    assert len(set(last)) == 1


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (3, 3), (4, 4), (5, 5), (6, 3), (7, 4), (8, 4), (9, 3), (18, 3)]
)
def test_sheet_chooses_columns(count: int, columns: int) -> None:
    picture = sheet([(plain(2, 2), "", "")] * count, tile_width=10)
    assert picture.shape[1] == columns * 14 + 4


def test_sheet_takes_room_only_for_text_there_is() -> None:
    tiles = {text: sheet([(plain(8, 8), *text), (plain(8, 8), "", "")])
             for text in [("", ""), ("t", ""), ("", "s"), ("t", "s")]}  # fmt: skip
    heights = [tile.shape[0] for tile in tiles.values()]
    assert heights[0] < heights[2] < heights[1] < heights[3]
    assert sheet([(plain(8, 8), "", "")], title="dog").shape[0] > heights[0]


def test_sheet_of_any_text_and_size() -> None:
    sizes = [(1, 1), (1, 500), (500, 1), (3, 2), (64, 48)]
    tiles = [(plain(*sizes[place % 5]), text, text) for place, text in enumerate(TEXTS)]
    picture = sheet(tiles, title=TEXTS[3], tile_width=64)
    assert picture.dtype == np.uint8
    assert has_ink(picture)
    assert sheet(tiles, columns=100, tile_width=1).ndim == 3


@pytest.mark.usefixtures("unchecked")
def test_bad_sheets() -> None:
    with pytest.raises(InputError, match=r"no tiles.*give at least one"):
        sheet([])
    with pytest.raises(InputError, match=r"columns is 0.*1 or more"):
        sheet([(plain(2, 2), "", "")], columns=0)
    with pytest.raises(InputError, match=r"tile_width is 2\.5"):
        sheet([(plain(2, 2), "", "")], tile_width=2.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a tile is float64"):
        sheet([(plain(2, 2) / 2, "", "")])
    with pytest.raises(InputError, match=r"width is -3"):
        caption_bar(-3, "dog")
