"""Every method: one table, and the methods as pure functions of activation and gradient."""

from mmcam.methods.table import METHODS, Method

__all__ = ["METHODS", "Method"]
