"""Runs that evaluate methods by metrics over a dataset, and write rows and a summary.

An interrupted run keeps the rows that it has written, and can be resumed.

>>> import mmcam
>>> from mmcam.evaluation import Study, evaluate
>>> study = Study(metrics=("average-drop",), task=mmcam.Classes(), methods=("gradcam", "gradcam++"))
>>> evaluate(model, "imagefolder:val/", study, "runs/drop", limit=1000)
"""

from mmcam.evaluation.report import summarize
from mmcam.evaluation.runner import evaluate
from mmcam.evaluation.study import Study

__all__ = ["Study", "evaluate", "summarize"]
