"""`python -m mmcam` is `mmcam`."""

from mmcam.cli import main

main()
