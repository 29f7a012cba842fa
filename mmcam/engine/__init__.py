"""Explain batches of pictures, and clips of any length in windows."""
