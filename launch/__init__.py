"""Launcher of runs, here, on Slurm or on Ray; what is done is skipped, what is unfinished is resumed."""


def sweep(*selectors, **arguments):
    """Runs a sweep from a script or a notebook, as `python -m launch.local` does; see `launch.scripted.sweep`."""
    from launch.scripted import sweep  # slow to import

    return sweep(*selectors, **arguments)
