"""Runs over a dataset: methods judged by metrics, in rows that survive a kill, and their summary.

>>> from mmcam.run import Study, evaluate
>>> study = Study(metrics=("average-drop",), task=mmcam.Classes(), methods=("gradcam", "gradcam++"))
>>> evaluate(model, "imagefolder:val/", study, "runs/drop", limit=1000)
"""

from mmcam.datasets.items import Dataset, Item, Region
from mmcam.datasets.registry import DATASETS, open_data
from mmcam.run.runner import evaluate
from mmcam.run.study import Study
from mmcam.run.summary import summarize

__all__ = [
    "DATASETS",
    "Dataset",
    "Item",
    "Region",
    "Study",
    "evaluate",
    "open_data",
    "summarize",
]
