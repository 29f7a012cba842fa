"""Small things that come with the package: sample inputs, word lists, trained weights."""
