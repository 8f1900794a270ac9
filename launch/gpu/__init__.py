"""Sweeps within some minutes on a borrowed GPU: what goes there, what runs there, what comes back."""
