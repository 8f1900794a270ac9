"""Decoding: beam search, and the translator made of it."""
