"""Runs over a dataset: methods evaluated by metrics, in rows that survive a kill, and a summary.

>>> from mmcam.evaluation import Study, evaluate
>>> study = Study(metrics=("average-drop",), task=mmcam.Classes(), methods=("gradcam", "gradcam++"))
>>> evaluate(model, "imagefolder:val/", study, "runs/drop", limit=1000)
"""

from mmcam.evaluation.report import summarize
from mmcam.evaluation.runner import evaluate
from mmcam.evaluation.study import Study

__all__ = ["Study", "evaluate", "summarize"]
