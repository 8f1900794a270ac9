"""Corpora that are generated."""
