"""The folder of a run on disk: its lease, checkpoints, logs, state and provenance."""
