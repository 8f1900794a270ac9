"""Check of the gradients: a configuration's first step, made in several ways, beside one device's and rounding.

Devices, micro-batches and recomputation change the order of sums alone, so that gradients may differ by rounding, and
by no more; training amplifies that, until nothing can be told from the losses of thirty steps later. How much rounding
makes of itself in this model is measured, on one device: the gradients are taken again of the batch with its rows in
reverse, and of parameters of which each is moved by one rounding, up or down. Without dropout, whose masks pmap and
micro-batches draw otherwise.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from tx import config as config_lib
from tx.data import tokenized
from tx.data.loader import TrainBatches
from tx.data.packing import Batch
from tx.errors import UserError
from tx.training.checks import check_config
from tx.training.sharding import Layout, gather, make_step_over_devices
from tx.training.step import init_state

# Times what rounding was measured to make of itself: the largest of a few draws is not the largest that there is.
ALLOWED = 10.0
DRAWS = 2  # of directions in which parameters are moved

_ONE_DEVICE = {
    "model.dtype": "float32",
    "model.attention_backend": "xla",
    "model.dropout": 0.0,
    "model.attention_dropout": 0.0,
    "model.relu_dropout": 0.0,
    "optim.optimizer": "adam",
    "optim.clip_norm": 0.0,
    "optim.beta1": 0.0,  # the first moment is the gradient then, to the bit: what is checked is the program that trains
    "train.ema": 0.0,
    "train.remat": False,
    "train.micro_batches": 1,
    "train.steps_per_dispatch": 1,
    "parallel.mode": "jit",
    "parallel.devices": 1,
    "parallel.fsdp_shards": 1,
}
_WAYS = {  # by name, with a number where it has one: the fields in which it differs from one device's
    "jit": {"parallel.devices": "number"},
    "fsdp": {"parallel.devices": "number", "parallel.fsdp_shards": "number"},
    "pmap": {"parallel.devices": "number", "parallel.mode": "pmap"},
    "micro": {"train.micro_batches": "number"},
    "remat": {"train.remat": True},
    "bfloat16": {"model.dtype": "bfloat16"},
}
_NUMBERED = [name for name, fields in _WAYS.items() if "number" in fields.values()]
_ON_DEVICES = [name for name, fields in _WAYS.items() if "parallel.devices" in fields]


class Difference(NamedTuple):
    """Difference of a way's gradients and loss from one device's.

    Attributes:
      dtype: of the way's arithmetic.
      groups: {layer, or "loss": its largest difference over the layer's largest gradient, in roundings of float32}.
      beyond: {parameter, or "loss": times what rounding explains}, the largest first, of those that differ by more.
    """

    dtype: str
    groups: dict[str, float]
    beyond: dict[str, float]


class Checked(NamedTuple):
    """Outcome of a check.

    Attributes:
      loss: one device's, in nats.
      rounding: {type of the arithmetic: what rounding makes of itself}, as `Difference.groups`.
      ways: the difference of each.
      left_out: {way: why}.
    """

    loss: float
    rounding: dict[str, dict[str, float]]
    ways: dict[str, Difference]
    left_out: dict[str, str]


def fields_of(way: str) -> dict[str, object]:
    """Returns {field: value} of a way by its name, e.g. "pmap2"; UserError where there is none of that name."""
    name, number = re.fullmatch(r"(.*?)(\d*)", way).groups()
    if way in _WAYS and way not in _NUMBERED:
        return _WAYS[way]
    if name not in _NUMBERED or not number or not 0 < int(number) < 2**31:
        there = ", ".join(f"{one}N" if one in _NUMBERED else one for one in _WAYS)
        raise UserError(f"--ways: no way {way!r}; there are {there}, N a number")
    return {field: int(number) if value == "number" else value for field, value in _WAYS[name].items()}


def devices_of(ways: Sequence[str]) -> int:
    """Returns how many devices the largest of some ways takes."""
    return max([1, *(int(fields_of(way).get("parallel.devices", 1)) for way in ways)])


def every_way(config: ConfigDict) -> list[str]:
    """Returns the ways that there are with this machine's devices; a configuration may still not allow one."""
    devices = jax.device_count()
    parts = next((n for n in range(4, 1, -1) if config.data.batch_rows % n == 0), 2)
    many = [f"{name}{devices}" for name in _ON_DEVICES] if devices > 1 else []
    return [*many, f"micro{parts}", *(name for name in _WAYS if name not in _NUMBERED)]


def check_gradients(
    config: ConfigDict, ways: Sequence[str], must: bool = True, tell: Callable[[str], None] = lambda doing: None
) -> Checked:
    """Makes the first step of a configuration in some ways, and compares the gradients.

    Args:
      config: one that is valid; what is of its own of parallel, of micro-batches and of the type is not looked at.
      ways: their names.
      must: whether a way that the configuration or the devices do not allow is an error, or left out.
      tell: called with what is being computed.
    """
    check_config(config)
    data = tokenized.prepare(config.data, config.model.vocab_size)
    config = tokenized.sized(config, data)
    one, allowed, left_out = _changed(config, _ONE_DEVICE), {}, {}
    for way in ways:
        try:
            allowed[way] = _changed(one, fields_of(way))
            Layout(allowed[way])
        except UserError as error:
            if must:
                raise
            allowed.pop(way, None)  # it is there where the devices, not the fields, are what lacks
            left_out[way] = str(error)
    tell("one device")
    batch, compute = _first_batch(config, data), _Gradients(one)
    wanted = compute(batch)
    if lost := [name for name, leaf in wanted.items() if not np.isfinite(leaf).all()]:
        raise UserError(f"{config.name}: on one device the gradient of {lost[0]} is not finite; there is none to check")
    noise, found = {"float32": _rounding(compute, batch, wanted, "float32")}, {}
    for way, other in allowed.items():
        tell(way)
        dtype = other.model.dtype
        if dtype not in noise:
            noise[dtype] = _rounding(compute, batch, wanted, dtype, noise["float32"])
        found[way] = _difference(dtype, _Gradients(other)(batch), wanted, noise[dtype])
    rounding = {dtype: _by_group(each, wanted) for dtype, each in noise.items()}
    return Checked(float(wanted["loss"]), rounding, found, left_out)


def _first_batch(config, data):
    batches = TrainBatches(
        data.splits["train"],
        seed=config.train.seed,
        row_length=config.data.row_length,
        batch_rows=config.data.batch_rows,
        max_length_quantile=config.data.max_length_quantile,
    )
    return next(batches)


def _changed(config, diff):
    config = config.copy_and_resolve_references()
    config_lib.update(config, diff, where="tx.check")
    config_lib.validate(config)
    return config


class _Gradients:
    """Function of a batch: {parameter: its gradient} of a configuration's first step; its loss is there as "loss"."""

    def __init__(self, config):
        self._config, self._layout, self._step = config, Layout(config), make_step_over_devices(config)

    def __call__(self, batch: Batch, move: Callable[[jax.Array], jax.Array] = lambda leaf: leaf) -> dict:
        """Takes the gradients at parameters each array of which is moved."""
        state = init_state(self._config)
        state = self._layout.shard_state(state.replace(params=jax.tree.map(move, state.params)))
        state, metrics = self._step(state, batch)
        tree = jax.device_get(gather(optax.tree.get(state.opt_state, "mu")))
        named = {
            "/".join(str(key.key) for key in path): np.asarray(leaf, np.float64)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        return named | {"loss": np.asarray(metrics["loss"], np.float64)}


def _rounding(compute, batch, wanted, dtype, noise=None) -> dict[str, float]:
    """Returns {parameter: the largest difference that rounding makes of its gradient}.

    Args:
      compute, batch, wanted: one device's gradients, and how they were computed.
      dtype: what is rounded to.
      noise: float32's, for another type: it makes as many roundings' difference of gradients that are zero but for it.
    """
    eps, least = float(jnp.finfo(dtype).eps), float(jnp.finfo("float32").eps)
    found = [compute({field: rows[::-1] for field, rows in batch.items()})]
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        found.append(compute(batch, lambda leaf, rng=rng: leaf * _signs(rng, leaf.shape, eps)))
    return {
        name: max(
            least * _largest(leaf),
            eps / least * (noise or {}).get(name, 0.0),
            *(_largest(each[name] - leaf) for each in found),
        )
        for name, leaf in wanted.items()
    }


def _signs(rng, shape, eps):
    """Returns 1 + eps or 1 - eps, at random."""
    return jnp.asarray(1 + eps * rng.choice([-1, 1], shape), jnp.float32)


def _difference(dtype, found, wanted, noise) -> Difference:
    apart = {name: _largest(found[name] - wanted[name]) for name in wanted}
    times = {name: apart[name] / noise[name] if noise[name] else np.inf for name in wanted if apart[name]}
    beyond = {name: float(n) for name, n in sorted(times.items(), key=lambda pair: -pair[1]) if not n <= ALLOWED}
    return Difference(dtype, _by_group(apart, wanted), beyond)


def _by_group(apart: Mapping[str, float], wanted) -> dict[str, float]:
    """Returns the largest of some differences in each layer, over its largest gradient, in roundings of float32."""
    groups = dict.fromkeys(name.partition("/")[0] for name in wanted)
    for group in groups:
        names = [name for name in wanted if name.partition("/")[0] == group]
        largest = max(_largest(wanted[name]) for name in names)
        groups[group] = float(max(apart[name] for name in names) / (largest or 1.0) / np.finfo(np.float32).eps)
    return groups


def _largest(array) -> float:
    return float(np.max(np.abs(array)))
