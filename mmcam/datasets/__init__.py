"""Datasets: items with their ground truth, opened by a specification string (`open_data`)."""

from mmcam.datasets.items import WHOLE, Dataset, Item, Region, Rows
from mmcam.datasets.registry import DATASETS, open_data

__all__ = ["DATASETS", "WHOLE", "Dataset", "Item", "Region", "Rows", "open_data"]
