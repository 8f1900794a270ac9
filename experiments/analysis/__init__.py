"""Analyses of components and of trained models, beside the tables of results."""
