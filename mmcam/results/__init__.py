"""One explanation: its data, its drawings and its files."""

from mmcam.results.explanation import Explanation, Peak

__all__ = ["Explanation", "Peak"]
