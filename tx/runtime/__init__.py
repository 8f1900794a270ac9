"""The process that a run is: other processes, determinism, memory, signals."""
