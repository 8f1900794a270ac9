"""Checks of a configuration beside `tx.config.validate`, which is without JAX and so knows no component."""

from ml_collections import ConfigDict

from tx.evaluation.metrics import metrics
from tx.evaluation.tokenizers import bleu_tokenizer
from tx.model.losses import losses
from tx.model.positions import check_length, positions_needed
from tx.model.transformer import check_components
from tx.training.optimizer import optimizers, schedules


def check_config(config: ConfigDict) -> None:
    """Raises UserError for the name of a component that there is not, and for rows longer than the learned positions.

    Likewise for a target language that cannot be scored here: that is found before anything is trained.

    Args:
      config: one that is valid.
    """
    check_components(config.model)
    _ = schedules[config.optim.schedule], optimizers[config.optim.optimizer], losses[config.loss.name]
    metrics.check(config.probe)
    longest = positions_needed(config.model.architecture, config.data.row_length, config.data.row_length)
    check_length(config.model.positions, longest, config.model.max_positions)
    _ = bleu_tokenizer(config.data.target)
