"""Runs as other tools keep them, `python -m experiments export`: written from the files of runs, whenever wanted.

Training depends on none of these tools.
"""
