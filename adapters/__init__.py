"""Adapters: one file for each family of models."""
