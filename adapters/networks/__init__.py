"""Networks of the papers, written out."""
