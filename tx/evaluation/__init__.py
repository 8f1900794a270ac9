"""Evaluation of trained parameters: perplexity, translations and their scores, attention."""
