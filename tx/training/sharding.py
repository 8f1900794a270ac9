"""Data parallelism and sharded parameters (FSDP): the devices of a run, what lies where, the training step over them.

With `parallel.mode=jit` the devices are a mesh with two axes, "data" and "shard". The rows of a batch are split over
all of them. Big parameters, and the optimiser's moments and the moving average with them, are cut along "shard" and
copied along "data"; a step gathers the parameters, computes what one device would compute, dropout masks included, and
each device updates its cut.

With `parallel.mode=pmap` every device has the whole state and its rows of the batch, and draws dropout masks of its own
for them: a function of the seed, the step and the device's index, so that another number of devices draws others.

Without dropout both give the numbers of one device, up to the order of sums.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from tx.data.packing import Batch
from tx.errors import UserError
from tx.runtime import backend
from tx.training import step as one_device
from tx.training.stacking import TracedHyperparameters
from tx.training.step import TrainState, init_state, train_step

SMALL = 1024  # elements: an array of no more is copied rather than cut


class Layout:
    """Layout of a run on its devices.

    Args:
      config: a configuration whose `parallel` says which devices.
      there: the devices to choose from, for a program that is to be compiled for some that this machine has not; None
        for those of all processes.

    Attributes:
      devices: all of them, those of a process side by side.
      mapped: whether each has a program of its own (pmap).

    Raises UserError where there are fewer devices, or they cannot share the batch or the parameters evenly.
    """

    def __init__(self, config: ConfigDict, there: Sequence[jax.Device] | None = None):
        wanted, rows, shards = config.parallel.devices, config.data.batch_rows, config.parallel.fsdp_shards
        own, each = 0, [there]
        if there is None:
            own = jax.process_index()
            each = [jax.local_devices(process_index=i) for i in range(jax.process_count())]
        processes, number = len(each), sum(map(len, each))
        count = wanted or number
        if count > number:
            raise UserError(f"parallel.devices={count}, but there are {number}; set it to {number}, or to 0 for all")
        if count % processes:
            raise UserError(
                f"parallel.devices={count} cannot be shared evenly by {processes} processes; "
                f"make it a multiple of {processes}, or 0 for all"
            )
        if count % shards:
            raise UserError(
                f"parallel.fsdp_shards={shards} does not divide {count} devices; choose a divisor of {count}"
            )
        here = [devices[: count // processes] for devices in each]
        self.devices = [device for devices in here for device in devices]
        if len(self.devices) < count:
            raise UserError(f"parallel.devices={count}, but not every process has {count // processes} devices")
        if rows % (count * (parts := config.train.micro_batches)):
            over = f"{count} devices" + (f" in {parts} micro-batches" if parts > 1 else "")
            raise UserError(
                f"data.batch_rows={rows} cannot be split over {over}; make it a multiple of {count * parts}, "
                f"or parallel.devices a divisor of {rows // parts}"
            )
        self.mapped = config.parallel.mode == "pmap"
        self._mine = here[own]
        self._mesh = Mesh(np.array(self.devices).reshape(-1, shards), ("data", "shard"))
        self._whole = NamedSharding(self._mesh, PartitionSpec())
        self._rows = NamedSharding(self._mesh, PartitionSpec(("data", "shard")))

    @property
    def one(self) -> bool:
        """Whether this is the run of a single device, which needs none of all this."""
        return len(self.devices) == 1 and not self.mapped

    def __str__(self) -> str:
        if self.mapped:
            return (
                f"pmap over {len(self.devices)} devices: each draws dropout masks of its own, "
                "and another number of devices draws others"
            )
        return f"jit over a mesh of {len(self.devices)} devices: " + ", ".join(
            f"{name}={size}" for name, size in self._mesh.shape.items()
        )

    def shardings(self, state: TrainState) -> TrainState:
        """Returns how each array of a state (or of its shapes) lies on the mesh."""
        return jax.tree.map(lambda leaf: NamedSharding(self._mesh, self._cut(leaf.shape)), state)

    def _cut(self, shape):
        """Returns the specification that cuts the longest dimension that can be cut evenly."""
        shards = self._mesh.shape["shard"]
        even = [axis for axis, size in enumerate(shape) if size % shards == 0]
        if shards == 1 or not even or np.prod(shape) <= SMALL:
            return PartitionSpec()
        longest = max(even, key=lambda axis: shape[axis])
        return PartitionSpec(*(None,) * longest, "shard")

    def shard_state(self, state: TrainState) -> TrainState:
        """Returns a state laid out as the step takes it; every process gives the same, whole one."""
        if self.one:
            return state
        if self.mapped:
            return jax.device_put(state, NamedSharding(Mesh(self._mine, ("data",)), PartitionSpec()))
        return jax.tree.map(_shard, state, self.shardings(state))

    def shard_batch(self, batch: Batch) -> dict[str, Any]:
        """Returns the rows of a batch laid out as the step takes them; every process gives those of its own devices."""
        if self.mapped:
            return {field: rows.reshape(len(self._mine), -1, rows.shape[1]) for field, rows in batch.items()}
        return {field: jax.make_array_from_process_local_data(self._rows, rows) for field, rows in batch.items()}

    def compile(
        self, config: ConfigDict
    ) -> Callable[[TrainState, dict, TracedHyperparameters], tuple[TrainState, dict]]:
        """Returns the step over these devices, compiled at its first call; the state is donated."""
        if self.mapped:
            return jax.pmap(
                functools.partial(train_step, config, axis="data"),
                axis_name="data",
                in_axes=(None, 0, None),
                out_axes=None,  # the state stays one logical tree: no axis of devices
                devices=self.devices,
                donate_argnums=0,
            )
        lies = self.shardings(jax.eval_shape(lambda: init_state(config)))

        def step(state, batch, hyperparameters):
            # Else the compiler may cut activations along with the parameters, which costs more than it saves.
            state = state.replace(params=jax.lax.with_sharding_constraint(state.params, self._whole))
            return train_step(config, state, batch, hyperparameters, parts=len(self.devices))

        return jax.jit(
            step,
            in_shardings=(lies, self._rows, self._whole),
            out_shardings=(lies, self._whole),
            donate_argnums=0,
            compiler_options=backend.training_options(),
        )


def make_step_over_devices(*configs: ConfigDict) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """Returns the step over the configuration's devices: (state, batch) -> (state after one update, its metrics).

    The state is one that `Layout.shard_state` or a step returned; it is donated. The batch is in memory. With many
    processes every one makes each step, with its own rows of the batch (`tx.runtime.distributed.share`). Several
    configurations, or several steps a dispatch, are for one device (`tx.training.step.make_train_step`).
    """
    config, layout = configs[0], Layout(configs[0])
    if layout.one:
        return one_device.make_train_step(*configs)
    step, hyperparameters = layout.compile(config), TracedHyperparameters.of(config)
    return lambda state, batch: step(state, layout.shard_batch(batch), hyperparameters)


def gather(tree: Any) -> Any:
    """Returns arrays whole, on this process's first device, wherever they lay; they share memory where they can.

    With many processes every one must call it.
    """
    return jax.tree.map(_gathered, tree)


def _gathered(leaf):
    if leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    here = jax.local_devices()[0]
    whole = leaf if leaf.is_fully_addressable else multihost_utils.process_allgather(leaf, tiled=True)
    return jax.device_put(whole, here)


def _shard(array, sharding):
    """Returns a global array of this process's parts of an array that every process has."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: np.asarray(array)[index])
