"""One recorded batch and its maps, and clips of any length in windows."""
