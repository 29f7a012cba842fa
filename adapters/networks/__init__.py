"""Implementations of the papers' networks."""
