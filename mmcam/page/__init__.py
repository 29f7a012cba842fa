"""Self-contained HTML pages: the page of one result, and a gallery of many."""

from mmcam.page.galleries import PAGE, gallery, read_folder
from mmcam.page.html import gallery_page, notebook, page, write_page
from mmcam.page.previews import clip_preview, image_preview
from mmcam.page.record import record

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
