"""Does a map rank places as occluding them does? (ICCV section 5.3, IJCV sections 5.3 and 8.2.)"""

from __future__ import annotations

from mmcam.errors import EvaluationError
from mmcam.evaluators.maps import Map, spearman, to_cells


def occlusion_correlation(
    heatmap: Map, occlusion: Map, cells: tuple[int, ...] | None = None
) -> float:
    """Spearman's rank correlation of a map with an occlusion map of the same sample, in [-1, 1].

    The papers do not say at what resolution they compare. Here both are averaged over `cells`, by
    default those of the occlusion map, which is best given at the grid it was made on: its
    upsampled pixels would only repeat it. Signs are kept in both. A constant map, an empty one
    among them, orders nothing and has a correlation of 0.

    Args:
        heatmap: the map to judge.
        occlusion: drops of the score, `[rows columns]` or `[t rows columns]`, over the same sample.
        cells: the grid to compare on.

    Raises:
        EvaluationError: a constant occlusion map, other numbers of axes, or too little seen.
    """
    cells = occlusion.shape if cells is None else cells
    reference = to_cells(occlusion, cells)
    finite = reference[reference == reference]
    if finite.min() == finite.max():
        raise EvaluationError(
            "the occlusion map is constant: covering any place changes the score alike, so it "
            "ranks nothing; use smaller patches or leave this sample out"
        )
    return spearman(to_cells(heatmap, cells), reference)
