"""One page to look at: a self-contained HTML text of one result, or of many as a gallery."""

from mmcam.page.galleries import PAGE, gallery, read_folder
from mmcam.page.html import gallery_page, notebook, page, write_page
from mmcam.page.record import record
from mmcam.page.seen import clip_seen, picture_seen

__all__ = [
    "PAGE",
    "clip_seen",
    "gallery",
    "gallery_page",
    "notebook",
    "page",
    "picture_seen",
    "read_folder",
    "record",
    "write_page",
]
