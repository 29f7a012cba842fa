"""Reading and writing pictures and clips; video libraries are imported only when needed."""

from __future__ import annotations

from mmcam.media.clips import Clip, open_clip
from mmcam.media.images import read_image, write_image
from mmcam.media.writer import ClipWriter

__all__ = ["Clip", "ClipWriter", "open_clip", "read_image", "write_image"]
