"""Datasets by one line of text (`open_data`): items with what is known to be true of them."""

from mmcam.datasets.items import WHOLE, Dataset, Item, Region, Rows
from mmcam.datasets.registry import DATASETS, open_data

__all__ = ["DATASETS", "WHOLE", "Dataset", "Item", "Region", "Rows", "open_data"]
