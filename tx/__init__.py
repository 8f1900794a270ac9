"""tx: a laboratory for Transformer ablations in JAX/Flax."""

from tx import streams

streams.quiet_while_importing()


def load(run, **options):
    """Returns the trained model of a run's folder (`tx.trained.TrainedModel`): parameters and subwords, no text.

    Files with components that its launch imported are imported again, as `tx.runs.imports` says.

    Args:
      run: the folder, e.g. "runs/table3@smoke/base/seed1".
      options: fields of config.decode instead of the run's own, e.g. beam=1, average_last=5.

    Raises UserError where the folder holds no trained run.
    """
    from tx.trained import load  # JAX is slow to import

    return load(run, options)
