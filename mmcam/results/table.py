"""Explanations as a table of pandas, which is imported on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmcam.errors import MissingExtra
from mmcam.results.explanation import Explanation
from mmcam.results.files import target_facts

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS: dict[str, str | None] = {
    "label": None,
    "kind": None,
    "index": "Int64",
    "position": "Int64",
    "score": "float64",
    "score_name": None,
    "log_prob": "float64",
    "probability": "float64",
    "method": None,
    "layer": None,
    "counterfactual": "bool",
    "grid": None,
    "peak_x": "float64",
    "peak_y": "float64",
    "peak_frame": "Int64",
    "empty": "bool",
    "source": None,
}
"""The columns and their types; None where pandas finds the type in the values."""


def dataframe(items: Sequence[Explanation], source: str) -> DataFrame:
    """One row for each map, in order; `source` is the path of the picture or clip.

    Raises:
        InputError: a map has NaN or infinite values.
        MissingExtra: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingExtra("tables need pandas; pip install 'mmcam[notebook]'") from error
    rows = []
    for explanation in items:
        facts = target_facts("", explanation)
        facts |= {f"peak_{axis}": value for axis, value in facts["peak"].items()}
        facts |= {"grid": tuple(facts["grid"]), "source": source}
        rows.append({name: facts[name] for name in COLUMNS})
    table = pandas.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({name: kind for name, kind in COLUMNS.items() if kind is not None})
