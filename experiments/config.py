"""For command lines: `--config=experiments/config.py:SWEEP/VARIANT@SCALE`."""

from experiments import registry


def get_config(name: str):
    """Returns the configuration of a run, e.g. "table3/A/h=1@multi30k"; UserError as in registry.parse."""
    return registry.get_config(name)
