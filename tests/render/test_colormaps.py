from __future__ import annotations

import jaxtyping
import numpy as np
import pytest

from mmcam.errors import InputError
from mmcam.render.colormaps import COLORMAPS, colorize, colorize_signed

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])

ENDS = {
    "inferno": ((0, 0, 4), (252, 255, 164)),
    "magma": ((0, 0, 4), (252, 253, 191)),
    "viridis": ((68, 1, 84), (253, 231, 37)),
    "turbo": ((48, 18, 59), (122, 4, 3)),
    "jet": ((0, 0, 128), (128, 0, 0)),
    "gray": ((0, 0, 0), (255, 255, 255)),
}


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the run-time checks of shapes and types, as for a user."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("name", COLORMAPS)
def test_both_ends_are_the_published_colours(name: str) -> None:
    low, high = colorize(np.array([0.0, 1.0], dtype=np.float32), name)
    assert (tuple(low), tuple(high)) == ENDS[name]


@pytest.mark.parametrize("name", ["inferno", "magma", "viridis", "gray"])
def test_uniform_maps_only_get_lighter(name: str) -> None:
    luminance = linear(COLORMAPS[name]) @ LUMINANCE
    assert np.all(np.diff(luminance[::8]) > 0)
    # From one entry to the next, rounding to whole levels may take back a little.
    assert np.diff(luminance).min() > -0.01


def linear(color: np.ndarray) -> np.ndarray:
    """Bytes of sRGB as light, in [0, 1]."""
    share = color / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def test_jet_is_three_trapezia() -> None:
    values = np.array([0.125, 0.375, 0.5, 0.625, 0.875])
    expected = [(0, 0, 255), (0, 255, 255), (128, 255, 128), (255, 255, 0), (255, 0, 0)]
    assert [tuple(color) for color in colorize(values, "jet")] == expected


def test_any_shape_and_float_type() -> None:
    for shape in [(), (3,), (2, 3), (2, 3, 4)]:
        for dtype in (np.float16, np.float32, np.float64):
            colors = colorize(np.full(shape, 0.5, dtype=dtype), "gray")
            assert colors.shape == (*shape, 3)
            assert colors.dtype == np.uint8
            assert np.all(colors == 128)
    assert colorize(np.zeros((0, 4), dtype=np.float32)).shape == (0, 4, 3)


def test_what_is_returned_can_be_written_to() -> None:
    before = COLORMAPS["inferno"].copy()
    colorize(np.zeros((2, 2), dtype=np.float32))[:] = 9
    assert np.array_equal(COLORMAPS["inferno"], before)


def test_signed_values_are_even_about_near_white() -> None:
    against, nothing, for_it = colorize_signed(np.array([-1.0, 0.0, 1.0]))
    assert tuple(nothing) == (245, 245, 245)
    assert against[2] > against[0]
    assert for_it[0] > for_it[2]
    steps = np.linspace(0, 1, 9)
    luminance = [linear(colorize_signed(sign * steps)) @ LUMINANCE for sign in (-1, 1)]
    assert np.all(np.diff(luminance, axis=1) < 0)
    assert np.abs(luminance[0] - luminance[1]).max() < 0.1


@pytest.mark.usefixtures("unchecked")
def test_unknown_map_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'virids'; nearest: viridis.*Known: inferno, magma"):
        colorize(np.zeros(3), "virids")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan, np.inf])
def test_values_outside_the_range(value: float) -> None:
    with pytest.raises(InputError, match=r"values ranges from .* must be in \[0, 1\]; normalise"):
        colorize(np.array([0.5, value]))


@pytest.mark.usefixtures("unchecked")
def test_other_bad_values() -> None:
    with pytest.raises(InputError, match=r"from -1.5 to 0, .* \[-1, 1\]"):
        colorize_signed(np.array([-1.5, 0.0]))
    with pytest.raises(InputError, match=r"values is int64 \[2\].*float32"):
        colorize(np.array([0, 1]))
    with pytest.raises(InputError, match=r"values is list"):
        colorize([0.0, 1.0])  # type: ignore[arg-type]
