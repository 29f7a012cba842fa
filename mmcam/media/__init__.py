"""Reading pictures and clips, writing them; no video library is imported before it is needed."""

from __future__ import annotations

from mmcam.media.clips import Clip, open_clip
from mmcam.media.images import read_image, write_image
from mmcam.media.writer import ClipWriter

__all__ = ["Clip", "ClipWriter", "open_clip", "read_image", "write_image"]
