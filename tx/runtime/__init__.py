"""The process that a run is: backend, memory, determinism, signals, other processes."""
