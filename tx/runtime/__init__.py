"""Process of a run: backend, memory, determinism, signals, other processes."""
