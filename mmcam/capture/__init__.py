"""Run a model, record activations at any layers, and take gradients of many scores."""

from mmcam.capture.layers import resolve, tapped
from mmcam.capture.model_state import untouched
from mmcam.capture.recording import Recording, capture

__all__ = ["Recording", "capture", "resolve", "tapped", "untouched"]
