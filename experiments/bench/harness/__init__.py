"""Harness of measurements: turns, processes, the machine, sentences."""
