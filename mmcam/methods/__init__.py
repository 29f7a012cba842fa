"""All methods: one table, and each method as a pure function."""

from mmcam.methods.table import METHODS, Method

__all__ = ["METHODS", "Method"]
