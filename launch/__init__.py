"""Launcher of runs on this machine; what is done is skipped, what is unfinished is resumed."""
