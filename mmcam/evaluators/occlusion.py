"""Rank correlation with occlusion maps (Grad-CAM, ICCV 2017 section 5.3, IJCV 2020 8.2)."""

from __future__ import annotations

from mmcam.errors import EvaluationError
from mmcam.evaluators.maps import Map, spearman, to_cells


def occlusion_correlation(
    heatmap: Map, occlusion: Map, cells: tuple[int, ...] | None = None
) -> float:
    """Spearman's rank correlation of a map with an occlusion map of the same sample, in [-1, 1].

    The papers do not give the resolution of the comparison. Here both maps are averaged over
    `cells`, by default those of the occlusion map. Give the occlusion map on its own grid:
    upsampled pixels would only repeat its values. Signs are kept in both. A constant map, such
    as an empty one, has a correlation of 0.

    Args:
        heatmap: the map to evaluate.
        occlusion: drops of the score, `[rows columns]` or `[t rows columns]`, over the same sample.
        cells: the grid to compare on.

    Raises:
        EvaluationError: a constant occlusion map, different numbers of axes, too few visible cells,
            or as `maps.read_map`.
    """
    cells = occlusion.shape if cells is None else cells
    reference = to_cells(occlusion, cells)
    finite = reference[reference == reference]
    if finite.min() == finite.max():
        raise EvaluationError(
            "the occlusion map is constant: every patch changes the score by the same amount, so "
            "the map ranks no cells; use smaller patches or leave this sample out"
        )
    return spearman(to_cells(heatmap, cells), reference)
