"""Checks of a configuration beside `tx.config.validate`, which is without JAX and so knows no component."""

from ml_collections import ConfigDict

from tx.errors import UserError
from tx.evaluation.metrics import metrics
from tx.evaluation.tokenizers import bleu_tokenizer
from tx.model.losses import losses
from tx.model.positions import PositionEncoding, check_length, class_of, positions_needed
from tx.model.transformer import check_components
from tx.training.optimizer import optimizers, schedules

_WITHOUT_ATTENTION = ("recurrent", "convolution", "dilated")  # of the mixers; they ask nothing of a position encoding


def check_config(config: ConfigDict) -> None:
    """Raises UserError for the name of a component that there is not, and for rows longer than the learned positions.

    Likewise for positions that a fused kernel of attention would leave out, or a mixer that is no attention, for an
    average of more checkpoints than there will be, and for a target language that cannot be scored here: that is found
    before anything is trained. What is trained already is read whatever it is.

    Args:
      config: one that is valid.
    """
    check_components(config.model)
    _refuse_unseen_biases(config.model)
    _refuse_untold_positions(config.model)
    _refuse_too_few_checkpoints(config.train, config.decode.average_last)
    _ = schedules[config.optim.schedule], optimizers[config.optim.optimizer], losses[config.loss.name]
    metrics.check(config.probe)
    longest = positions_needed(config.model.architecture, config.data.row_length, config.data.row_length)
    try:
        check_length(config.model.positions, longest, config.model.max_positions)
    except UserError:
        raise UserError(
            f"data.row_length={config.data.row_length} allows sentences that need {longest} positions, and "
            f"model.max_positions={config.model.max_positions} learns fewer: lower the one or raise the other"
        ) from None
    _ = bleu_tokenizer(config.data.target)


def _refuse_unseen_biases(model):
    encoding = class_of(model.positions)
    if model.attention_backend == "cudnn" and (not encoding or encoding.has_logit_bias() or encoding.has_value_bias()):
        does = "does: set" if encoding else "is made by a function, of which it is not known: register a class, or set"
        raise UserError(
            f"model.attention_backend=cudnn adds nothing to logits or values; model.positions={model.positions} {does} "
            "model.attention_backend=xla"
        )


def _refuse_untold_positions(model):
    encoding = class_of(model.positions)
    if model.mixer not in _WITHOUT_ATTENTION or not encoding:  # of a function it is not known yet
        return
    methods = ("__call__", "rotate", "logit_bias", "value_bias")
    overridden = {name for name in methods if getattr(encoding, name) is not getattr(PositionEncoding, name)}
    if overridden and "__call__" not in overridden:
        raise UserError(
            f"model.positions={model.positions} acts within self-attention, and model.mixer={model.mixer} has none; "
            "choose model.positions=sinusoidal, learned or none, or model.mixer=attention or local"
        )


def _refuse_too_few_checkpoints(train, last):
    there = -(-train.steps // train.checkpoint_every)  # those of interruptions do not count (tx/runs/retention.py)
    if last > there:
        raise UserError(
            f"decode.average_last={last} asks for averaging {last} checkpoints, but a run of train.steps={train.steps} "
            f"holds {there} at its end: one every train.checkpoint_every={train.checkpoint_every} steps, and the last; "
            f"set decode.average_last={there}, or a smaller train.checkpoint_every"
        )
