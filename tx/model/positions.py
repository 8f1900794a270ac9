"""Position encodings (section 3.5), by name: `@positions.register(NAME)` adds an encoding."""

import math

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from tx.errors import UserError
from tx.registry import Registry

positions = Registry(
    "model.positions",
    (
        *("num_layers", "num_heads", "d_model", "d_k", "d_v", "max_positions", "max_offset"),
        *("sinusoid_layout", "sinusoid_endpoint", "scale_positions", "causal"),
    ),
    reserved=("parent", "name"),
)
_RENAMED = {"turn": "rotate", "logits": "logit_bias", "heads": "value_bias"}  # methods, by their names of before


class PositionEncoding(nn.Module):
    """Base class of encodings; encoder and decoder have one each, for self-attention alone.

    An encoding overrides what it needs: a vector added to each embedding (`__call__`), a rotation of queries and keys,
    a bias added to the logits, a bias added to the weighted sum of the values. An offset is the position of a key less
    the query's.

    Attributes: the model's fields of the same names, and
      causal: whether keys never stand behind their query.
    """

    num_layers: int
    num_heads: int
    d_model: int
    d_k: int
    d_v: int
    max_positions: int
    max_offset: int
    sinusoid_layout: str
    sinusoid_endpoint: bool
    scale_positions: bool
    causal: bool

    def __init_subclass__(cls, **keywords):
        """Raises UserError for a method under a name of before: nothing would call it, and nobody would notice."""
        for old, new in _RENAMED.items():
            if callable(vars(cls).get(old)) and new not in vars(cls):
                raise UserError(
                    f"position encoding {cls.__name__}: nothing calls a method {old} any more; name it {new}"
                )
        super().__init_subclass__(**keywords)

    @classmethod
    def has_logit_bias(cls) -> bool:
        """Returns whether `logit_bias` ever returns anything."""
        return cls.logit_bias is not PositionEncoding.logit_bias

    @classmethod
    def has_value_bias(cls) -> bool:
        """Returns whether `value_bias` ever returns anything."""
        return cls.value_bias is not PositionEncoding.value_bias

    @classmethod
    def is_limited(cls) -> bool:
        """Returns whether it ends at max_positions, as a learned table does; then longer sentences are refused."""
        return False

    def __call__(self, position: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        """Returns what is added to the embeddings; positions count from 0 in each sentence."""
        return jnp.zeros((*position.shape, self.d_model), jnp.float32)

    def rotate(self, x: Float[Array, "b n heads k"], position: Int[Array, "b n"]) -> Float[Array, "b n heads k"]:
        """Returns queries or keys, rotated by their positions; with model.num_kv_heads keys have so many heads."""
        return x

    def logit_bias(
        self, layer: int, query: Float[Array, "b h n k"], offset: Int[Array, "n m"]
    ) -> Float[Array, "#b #h n m"] | None:
        """Returns what is added to the logits of a layer, from queries as the similarity has scaled them."""
        return None

    def value_bias(
        self, layer: int, weights: Float[Array, "b h n m"], offset: Int[Array, "n m"]
    ) -> Float[Array, "b h n v"] | None:
        """Returns what is added to the weighted values of a layer, from the weights of attention."""
        return None


def _refuse_odd(encoding, field, width):
    """Raises UserError for a width that has no two halves; `tx.config.validate` knows this project's own by name."""
    if width % 2:
        raise UserError(f"model.{field} must be even for positions of {type(encoding).__name__}; got {width}")


@positions.register("sinusoidal")
class Sinusoidal(PositionEncoding):
    """Sinusoids (section 3.5): sin and cos of position / 10000^(i / (d_model/2)), i = 0 ... d_model/2 - 1.

    sinusoid_layout: "interleaved" puts sine and cosine of a frequency side by side, as the formula reads;
    "concatenated" puts all sines first, as the June 2017 code does. One is a permutation of the other.
    sinusoid_endpoint: True divides by d_model/2 - 1 instead, so that the slowest frequency is 1/10000 exactly, as
    the code does.
    """

    def __call__(self, position: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        _refuse_odd(self, "d_model", self.d_model)
        half = self.d_model // 2
        exponent = np.arange(half) / max(half - 1 if self.sinusoid_endpoint else half, 1)
        frequency = jnp.asarray(10000.0**-exponent, jnp.float32)
        angle = position[..., None].astype(jnp.float32) * frequency[None, None, :]
        pair = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-2)  # (b, n, 2, d/2)
        if self.sinusoid_layout == "interleaved":
            pair = pair.swapaxes(-1, -2)
        return pair.reshape(*position.shape, self.d_model)


@positions.register("learned")
class Learned(PositionEncoding):
    """Learned vectors (Table 3, row E): a table of max_positions; a sentence longer than the table is refused.

    Vectors start with standard deviation d_model^-0.5 and, with scale_positions, are multiplied by sqrt(d_model), as
    embeddings are: so the first learned positions of tensor2tensor (`add_positional_embedding_nd` in commit 192e90f9 of
    20 June 2017, five days after the code was published, which had none; the paper's own for row E are not public).
    Without it, as in the later `add_positional_embedding`, positions begin far smaller than embeddings and sinusoids.
    """

    @classmethod
    def is_limited(cls) -> bool:
        return True

    @nn.compact
    def __call__(self, position: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        table = self.param("table", nn.initializers.normal(self.d_model**-0.5), (self.max_positions, self.d_model))
        # A position that only turns up at run time and lies outside gives NaN, never a neighbour's vector.
        vectors = jnp.take(table, position, axis=0, mode="fill", fill_value=jnp.nan)
        return vectors * self.d_model**0.5 if self.scale_positions else vectors


@positions.register("none")
class NoPosition(PositionEncoding):
    """No encoding: the causal mask alone tells of order."""


@positions.register("relative")
class Relative(PositionEncoding):
    """Relative positions (Shaw et al. 2018): a trained vector for each offset up to max_offset, on keys and values.

    Each layer has tables of its own, which its heads share.
    """

    def setup(self):
        rows = 2 * self.max_offset + 1
        shape = (self.num_layers, rows)
        self.keys = self.param("keys", nn.initializers.normal(self.d_k**-0.5), (*shape, self.d_k))
        self.values = self.param("values", nn.initializers.normal(self.d_v**-0.5), (*shape, self.d_v))

    def logit_bias(
        self, layer: int, query: Float[Array, "b h n k"], offset: Int[Array, "n m"]
    ) -> Float[Array, "#b #h n m"] | None:
        """Returns q.a^K, of the same scaling as q.k."""
        keys = self.keys[layer].astype(query.dtype)[self._row(offset)]  # (n, m, k)
        return jnp.einsum("bhnk,nmk->bhnm", query, keys, preferred_element_type=jnp.float32)

    def value_bias(
        self, layer: int, weights: Float[Array, "b h n m"], offset: Int[Array, "n m"]
    ) -> Float[Array, "b h n v"] | None:
        """Returns the weighted mean of a^V."""
        return jnp.einsum("bhnm,nmv->bhnv", weights, self.values[layer].astype(weights.dtype)[self._row(offset)])

    def _row(self, offset):
        return jnp.clip(offset, -self.max_offset, self.max_offset) + self.max_offset


BUCKETS, FARTHEST = 32, 128  # of T5


@positions.register("t5")
class T5(PositionEncoding):
    """T5 bias (Raffel et al. 2020): a trained number a head for each of 32 buckets of offsets, added to the logits.

    All layers of a stack share them. Near offsets have a bucket each, farther ones share buckets that widen
    logarithmically up to offset 128, and all beyond share the last. The decoder, which sees no later keys, gives them
    all to earlier ones.
    """

    def setup(self):
        self.table = self.param("table", nn.initializers.normal(self.d_model**-0.5), (BUCKETS, self.num_heads))

    def logit_bias(
        self, layer: int, query: Float[Array, "b h n k"], offset: Int[Array, "n m"]
    ) -> Float[Array, "#b #h n m"] | None:
        """Returns the number of the offset's bucket."""
        return self.table[bucket(offset, self.causal)].transpose(2, 0, 1)[None]


def bucket(offset: Int[Array, "n m"], causal: bool) -> Int[Array, "n m"]:
    """Returns T5's bucket of each offset."""
    count = BUCKETS
    first = jnp.zeros_like(offset)
    distance = jnp.maximum(-offset, 0)
    if not causal:
        count //= 2
        first = jnp.where(offset > 0, count, 0)
        distance = jnp.abs(offset)
    exact = count // 2
    ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(FARTHEST / exact)
    far = exact + (ratio * (count - exact)).astype(offset.dtype)
    return first + jnp.where(distance < exact, distance, jnp.minimum(far, count - 1))


@positions.register("alibi")
class ALiBi(PositionEncoding):
    """ALiBi bias (Press et al. 2022): the distance times a slope a head, subtracted from the logits; untrained.

    The encoder takes the distance to either side.
    """

    def logit_bias(
        self, layer: int, query: Float[Array, "b h n k"], offset: Int[Array, "n m"]
    ) -> Float[Array, "#b #h n m"] | None:
        """Returns -slope * |offset|."""
        slopes = jnp.asarray(alibi_slopes(self.num_heads), jnp.float32)
        return (-slopes[:, None, None] * jnp.abs(offset).astype(jnp.float32)[None])[None]


def alibi_slopes(num_heads: int) -> list[float]:
    """Returns 2^(-8/h), 2^(-16/h), ... where h is a power of two.

    Elsewhere those of the next lower power p of two, then every other one of 2p's, as the authors' code has it.
    """
    power = 2 ** int(math.log2(num_heads))
    slopes = [2.0 ** (-8 * (i + 1) / power) for i in range(power)]
    return slopes + [2.0 ** (-4 * (2 * i + 1) / power) for i in range(num_heads - power)]


@positions.register("rotary")
class Rotary(PositionEncoding):
    """Rotary encoding (Su et al. 2021): rotates queries and keys by angles that grow with the position.

    Coordinates i < d_k/2 and i + d_k/2 are rotated by position / 10000^(2i / d_k), so that products of queries and keys
    depend on offsets alone.
    """

    def rotate(self, x: Float[Array, "b n heads k"], position: Int[Array, "b n"]) -> Float[Array, "b n heads k"]:
        _refuse_odd(self, "d_k", x.shape[-1])
        half = x.shape[-1] // 2
        frequency = jnp.asarray(10000.0 ** (-np.arange(half) / half), jnp.float32)
        angle = position[..., None, None].astype(jnp.float32) * frequency[None, None, None, :]
        sine, cosine = jnp.sin(angle).astype(x.dtype), jnp.cos(angle).astype(x.dtype)
        one, other = x[..., :half], x[..., half:]
        return jnp.concatenate([one * cosine - other * sine, one * sine + other * cosine], axis=-1)


def positions_needed(architecture: str, source: int, target: int) -> int:
    """Returns how many positions a sentence needs: one stack counts on from source to target, two count each."""
    return source + target if architecture == "decoder_only" else max(source, target)


def class_of(name: str) -> type[PositionEncoding] | None:
    """Returns the class of an encoding, None of one that a function makes; UserError for an unknown name."""
    encoding = positions[name]
    encoding = getattr(encoding, "func", encoding)  # of one with fields of its own
    return encoding if isinstance(encoding, type) and issubclass(encoding, PositionEncoding) else None


def check_length(name: str, length: int, max_positions: int) -> None:
    """Raises UserError for an unknown encoding, and where `length` tokens are more than a learned table holds."""
    encoding = class_of(name)
    if encoding and encoding.is_limited() and length > max_positions:
        raise UserError(
            f"a sentence of {length} tokens is longer than the learned position table of {max_positions} rows; "
            f"shorten it, or train with model.max_positions={length}"
        )
