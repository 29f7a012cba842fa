"""One page to look at: a self-contained HTML text of one result, or of many as a gallery."""

from mmcam.page.galleries import PAGE, gallery, read_folder
from mmcam.page.html import gallery_page, notebook, page, write_page
from mmcam.page.record import record
from mmcam.page.seen import clip_preview, image_preview

__all__ = [
    "PAGE",
    "clip_preview",
    "gallery",
    "gallery_page",
    "image_preview",
    "notebook",
    "page",
    "read_folder",
    "record",
    "write_page",
]
