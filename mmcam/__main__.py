"""`python -m mmcam` runs the command `mmcam`."""

from mmcam.cli import main

main()
