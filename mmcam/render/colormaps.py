"""Colour maps: from a number in [0, 1] to a colour.

Each map is a table of 257 colours. Entry k is the colour of the value k / 256, so that 0, 1/2 and
1 have exact entries.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, UInt8

from mmcam.render.checks import check_name, check_range

Table = UInt8[np.ndarray, "257 3"]

STEPS = 256


def _interpolate(colors: str) -> Table:
    """Interpolate a table linearly between evenly spaced colours, `rrggbb` separated by spaces."""
    knots = np.array([list(bytes.fromhex(color)) for color in colors.split()], dtype=np.float64)
    entries = np.linspace(0, STEPS, len(knots))
    channels = [np.interp(np.arange(STEPS + 1), entries, knots[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def _jet() -> Table:
    """Blue, cyan, yellow, red: each channel is a trapezium, and their centres are 1/4 apart."""
    value = np.arange(STEPS + 1)[:, None] / STEPS
    centers = np.array([0.75, 0.5, 0.25])
    table: Table = np.rint(255 * np.clip(1.5 - 4 * np.abs(value - centers), 0, 1)).astype(np.uint8)
    return table


def _gray() -> Table:
    return np.rint(np.linspace(0, 255, STEPS + 1)).astype(np.uint8)[:, None].repeat(3, axis=1)


# The first three are perceptually uniform: equal steps look equal, and lightness increases.
# The published maps are sampled at 17 values and interpolated linearly. The mean (largest) error
# of a channel over all values, in units of 1/255, against matplotlib 3.11: inferno 0.7 (6.4),
# magma 0.6 (2.7), viridis 0.6 (6.3), turbo 1.2 (6.5).
COLORMAPS: dict[str, Table] = {
    "inferno": _interpolate(
        "000004 0b0724 210c4a 3c0965 57106d 70196e 89226a a32b61 bb3755 "
        "d14644 e35932 f1711e f98d0a fcab0f f9ca32 f2e865 fcffa4"
    ),
    "magma": _interpolate(
        "000004 0a0822 1d1146 36106a 50127c 691c81 822681 9c2e7f b63779 "
        "cf4170 e65163 f5695c fb8761 fea571 fec387 fde0a2 fcfdbf"
    ),
    "viridis": _interpolate(
        "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26818e 21908c "
        "1f9f88 28ae80 3ebc74 5dc963 82d34c abdc32 d5e21a fde725"
    ),
    "turbo": _interpolate(
        "30123b 4040a1 466be3 4293ff 29bbec 18dcc3 31f299 6bfd64 a3fd3c "
        "cced34 edd03a fdae35 fb8022 ec520f d23105 ac1701 7a0403"
    ),
    "jet": _jet(),
    "gray": _gray(),
}

# Blue is negative, near white is zero, red is positive; both ends are equally dark.
DIVERGING: Table = _interpolate("15356f 2f6fb0 85b4d8 f5f5f5 eba07f c4483c 7a1020")


def colorize(
    values: Float[np.ndarray, "*shape"], name: str = "inferno"
) -> UInt8[np.ndarray, "*shape 3"]:
    """Values in [0, 1], of any shape, as colours of the colour map `name` (a key of `COLORMAPS`).

    Raises:
        InputError: the colour map is unknown, the dtype is not floating-point, or a value is NaN or
            outside [0, 1].
    """
    check_name(name, COLORMAPS, "colour map")
    check_range(values, "values")
    return _look_up(values, COLORMAPS[name])


def colorize_signed(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Signed values in [-1, 1], of any shape: blue below zero, near white at zero, red above.

    Raises:
        InputError: the dtype is not floating-point, or a value is NaN or outside [-1, 1].
    """
    check_range(values, "values", -1.0, 1.0)
    return _look_up((values + 1) / 2, DIVERGING)


def _look_up(values: Float[np.ndarray, "*shape"], table: Table) -> UInt8[np.ndarray, "*shape 3"]:
    entries: Int[np.ndarray, "*shape"] = np.rint(values * STEPS).astype(np.intp)
    return np.take(table, entries, axis=0)
