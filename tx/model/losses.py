"""Losses of a token, by name: `@losses.register(NAME)` adds one; it is computed in chunks as the paper's is."""

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tx.registry import Registry

losses = Registry("loss.name", positional=2)


@flax.struct.dataclass
class Labels:
    """Labels of some tokens: the right classes, and the distribution q that the others have a share of.

    Attributes:
      tokens: the right classes; 0 is padding, whose loss counts nothing.
      low, peak: q is low + peak * [class is the right one] (`tx.model.loss.smoothing`).
      entropy: of q.
    """

    tokens: Int[Array, " tokens"]
    low: Float[Array, ""]
    peak: Float[Array, ""]
    entropy: Float[Array, ""]

    def mean(self, values: Float[Array, "tokens vocab"]) -> Float[Array, " tokens"]:
        """Returns the mean under q of a value of each class."""
        at_target = jnp.take_along_axis(values, self.tokens[:, None], axis=-1)[:, 0]
        return self.low * values.sum(-1) + self.peak * at_target


@losses.register("label_smoothed")
def label_smoothed(logits: Float[Array, "tokens vocab"], labels: Labels) -> Float[Array, " tokens"]:
    """Returns the cross-entropy with smoothed labels less their entropy, the least that it can be (section 5.4).

    A loss is a function of logits and `Labels` that gives a value a token, in nats; its gradient is that of this
    function. The paper's own is computed by formula where it trains (`tx.model.loss.cross_entropy`).
    """
    return labels.mean(-jax.nn.log_softmax(logits)) - labels.entropy


@losses.register("z_loss")
def z_loss(logits: Float[Array, "tokens vocab"], labels: Labels, *, coefficient: float) -> Float[Array, " tokens"]:
    """Returns the paper's loss and coefficient * log^2 Z, which keeps the softmax's normaliser Z near 1.

    De Brébisson and Vincent 2016; PaLM (Chowdhery et al. 2022, section 5) with 1e-4.
    """
    return label_smoothed(logits, labels) + coefficient * jax.nn.logsumexp(logits, axis=-1) ** 2


@losses.register("focal")
def focal(logits: Float[Array, "tokens vocab"], labels: Labels, *, gamma: float) -> Float[Array, " tokens"]:
    """Returns the focal loss -(1 - p)^gamma log p (Lin et al. 2017), its mean under smoothed labels.

    With gamma 0 it is the cross-entropy.
    """
    log_p = jax.nn.log_softmax(logits)
    wrong = jnp.maximum(-jnp.expm1(log_p), 1e-7)  # its power has no finite slope at 0 for a gamma below 1
    return labels.mean(-(wrong**gamma) * log_p)
