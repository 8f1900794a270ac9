"""Runs on disk: the folder of each, its lease, checkpoints, logs, state, provenance and result."""
