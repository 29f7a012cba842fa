"""One explanation, how it is drawn, and the files it becomes."""

from mmcam.results.explanation import Explanation, Peak

__all__ = ["Explanation", "Peak"]
