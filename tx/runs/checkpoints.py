"""Checkpoints: parameters, their average, optimizer state, position in the data, progress, saved together by orbax.

A checkpoint holds whole arrays as one device has them, so it can be continued on any other number of devices. Its items
lie in folders of their own: who translates reads the parameters alone, a third of the bytes. The
checksums of all files are written before it gets its final name, since orbax restores most damaged files without a
word: one that does not match them is never opened. The first of a run is read back at once: what a disk or a library
makes of it otherwise is found then, not when the run is to go on.
"""

import contextlib
import functools
import glob
import operator
import pathlib
import resource
import shutil
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils.epath.gpath import PosixGPath

from tx import files
from tx.errors import UserError, printable
from tx.runs.checkpoint_files import APART, find_corruption, read_progress, renew_damaged_metadata
from tx.runs.retention import NewestAndTheirBest, regular_steps
from tx.runs.run_dir import is_step, refuse_unusable_name
from tx.runtime import distributed

_UNFINISHED = "*.orbax-checkpoint-tmp*"
_FULL = ("No space left", "quota exceeded", "File too large")


class _Folder(PosixGPath):
    """Path whose name is no pattern, as orbax takes paths: "br[1]" stands for itself, "st*r" for no "star"."""

    def glob(self, pattern):
        yield from (self / found for found in glob.glob(pattern, root_dir=self))


class Checkpoint(NamedTuple):
    """Contents of a checkpoint, each an item of its own.

    Attributes:
      params: the model's.
      opt_state: the optimizer's: Adam's moments and its count.
      data: the loader's position, for JSON.
      progress: how far the run is, for JSON: "step", which numbers the checkpoint; "dev", whose "best" says of which
        step the lowest dev loss was; and what else the run goes on with.
      ema: the moving average of the parameters; None, and no such item, of a run that keeps none.
    """

    params: Any
    opt_state: Any
    data: dict
    progress: dict
    ema: Any = None

    @property
    def trees(self) -> dict[str, Any]:
        """{item: its arrays} of the items that are trees of arrays."""
        ema = {} if self.ema is None else {"ema": self.ema}
        return {"params": self.params, "opt_state": self.opt_state} | ema


class Checkpoints:
    """Checkpoints of one run. Of many processes the first one writes and reads, and sends the others what it read.

    Args:
      folder: where they lie, one folder a step.
      keep: how many of the newest stay on disk, beside the best.
      every: steps between them; an evaluation between two may be the best, and have none.

    Raises UserError where no checkpoint can lie in a folder of that name.
    """

    def __init__(self, folder: pathlib.Path, keep: int | None = None, every: int = 1):
        self._folder, self._best, self._every = folder.resolve(), {}, every
        refuse_unusable_name(self._folder)
        if not distributed.is_primary():
            self._manager = None
            return
        folder.mkdir(parents=True, exist_ok=True)
        renew_damaged_metadata(self._folder)
        alone = ocp.options.MultiprocessingOptions(active_processes={0})
        options = ocp.CheckpointManagerOptions(
            preservation_policy=NewestAndTheirBest(keep, every, self._best),
            create=False,
            multiprocessing_options=alone,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        self._manager = ocp.CheckpointManager(_Folder(self._folder), options=options)
        for step in (there := self._manager.all_steps()):
            self._note_best(step, read_progress(self._folder / str(step)))
        self._tried = bool(there)

    def _note_best(self, step, progress):
        dev = progress.get("dev")
        best = dev.get("best") if isinstance(dev, dict) else None
        if isinstance(best, dict) and type(best.get("step")) is int:
            self._best[step] = best["step"]

    def save(self, checkpoint: Checkpoint) -> None:
        """Saves in the background; a checkpoint appears under its final name once it is whole, with its checksums.

        Its arrays are whole, on this process's first device.
        """
        if self._manager is None:
            return
        trees, progress = checkpoint.trees, checkpoint.progress
        if jax.process_count() > 1:  # orbax takes a device's arrays for parts of something bigger
            trees = jax.tree.map(np.asarray, trees)
        items = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
            data=ocp.args.JsonSave(checkpoint.data),
            progress=ocp.args.JsonSave(progress),
        )
        self._note_best(progress["step"], progress)
        _refuse_file_limit(*trees.values())
        with self._on_disk():
            self._manager.save(progress["step"], args=items)  # raises, too, what was wrong with the one before
            if not self._tried:
                self._manager.wait_until_finished()
                self._try(checkpoint)

    def _try(self, saved):
        """Raises UserError where a checkpoint is not read back as it was saved."""
        step, given = saved.progress["step"], saved.trees
        like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), given)  # a device has no room to spare
        try:
            read = self._read(step, {name: ocp.args.StandardRestore(tree) for name, tree in like.items()})
            other = [name for name in given if not jax.tree.all(jax.tree.map(_same_bits, read[name], given[name]))]
            found = f"{other[0]} is not what was saved" if other else self._find_corruption(step)
        except (OSError, ValueError, TypeError) as error:
            found = str(error)
        if found:
            raise UserError(
                f"{self._folder / str(step)} cannot be read back ({' '.join(found.split())[:300]}); "
                "choose a --workdir of another name, or on another disk"
            )
        self._tried = True

    def restore(self, params, opt_state, step: int, ema=None) -> Checkpoint:
        """Returns the checkpoint of a step; its arrays are whole, on this process's first device or in memory.

        Args:
          params, opt_state: arrays, or their jax.eval_shape, with the shapes to expect.
          step: one of `steps`.
          ema: as `params`, where the run keeps a moving average.
        """
        arrays = self._arrays(step, **Checkpoint(params, opt_state, {}, {}, ema).trees)
        json = {name: ocp.args.JsonRestore() for name in ("data", "progress")}
        return Checkpoint(**arrays, **distributed.broadcast_value(lambda: self._read(step, json)))

    def _arrays(self, step, **like):
        """Returns {item: its arrays} of a step, for items of such shapes."""
        if not distributed.is_primary():
            return distributed.shared(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like))
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like)
        items = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        return distributed.shared(self._read(step, items))

    def _read(self, step, items):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # orbax advises on sharding files, which one host does not need
            return dict(self._manager.restore(step, args=ocp.args.Composite(**items)).items())

    def newest(self) -> int:
        """Returns the step of the newest checkpoint; UserError where there is none."""
        if not (steps := self.steps()):
            raise UserError(f"there are no checkpoints in {self._folder}; train the run first")
        return steps[-1]

    def best_of(self, step: int) -> int | None:
        """Returns the step of the checkpoint with the lowest dev loss as of `step`; None where none was recorded.

        Raises UserError where the checkpoint of `step` is damaged.
        """
        self._refuse_corruption(step)
        return distributed.broadcast_value(lambda: self._best.get(step))

    def steps(self) -> list[int]:
        """Returns the steps that there are checkpoints of, in order."""
        return distributed.broadcast_value(lambda: sorted(self._manager.all_steps()))

    def _write_checksums(self):
        """Writes the checksums; orbax calls it when a checkpoint is whole, just before it gives it its final name."""
        for folder in self._folder.glob(_UNFINISHED):
            files.write_checksums(folder, apart=APART)

    def verify(self, step: int) -> bool:
        """Returns whether a checkpoint, and the best as of it, match their checksums.

        One that is not, or whose best is not, is set aside, with a warning.
        """
        return distributed.broadcast_value(lambda: self._verify(step))

    def _verify(self, step):
        best, found = self._best.get(step, step), self._find_corruption(step)
        has_none = best % self._every and not (self._folder / str(best)).exists()
        if not found and not has_none and (lost := self._find_corruption(best)):
            found = f"its best, checkpoint {best}: {lost}"
        if found:
            aside = files.numbered(self._folder.parent / "damaged" / str(step))
            (self._folder / str(step)).rename(aside)
            self._manager.reload()
            warning = f"warning: checkpoint {step} is damaged ({found}); set aside as {aside}"
            print(printable(warning), file=sys.stderr, flush=True)
        return not found

    def _find_corruption(self, step):
        return find_corruption(self._folder / str(step))

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, so that these can be saved anew."""
        for later in self.steps():
            if later > step and self._manager is not None:
                self._manager.delete(later)

    def average(self, like: dict, last: int, item: str = "params") -> dict:
        """Returns the mean of the parameters of the `last` newest checkpoints (section 6.1).

        Args:
          like: parameters, or their jax.eval_shape, with the shapes to expect.
          last: how many.
          item: as of `parameters`.

        Raises UserError where there are fewer, or one of them is damaged.
        """
        return self.parameters(like, self.averaged_steps(last), item)

    def averaged_steps(self, last: int) -> list[int]:
        """Returns the steps of the `last` newest checkpoints; of those saved for an interruption alone, of none.

        Raises UserError where there are fewer.
        """
        steps = regular_steps(self.steps(), self._every)[-last:]
        if len(steps) < last:
            raise UserError(
                f"averaging {last} checkpoints, but {self._folder} holds {len(steps)}, those of interruptions apart"
            )
        return steps

    def parameters(self, like: dict, steps: Sequence[int], item: str = "params") -> dict:
        """Returns the mean of the parameters of some checkpoints, of which nothing else is restored.

        Args:
          like: parameters, or their jax.eval_shape, with the shapes to expect.
          steps: of the checkpoints.
          item: "ema" for their moving averages instead, of which there are some with train.ema alone.

        Raises UserError where one of them is damaged.
        """
        for step in steps:
            self._refuse_corruption(step)
        if len(steps) == 1:
            return self._arrays(steps[0], **{item: like})[item]
        total = jax.tree.map(lambda _: 0, like)
        for step in steps:  # one at a time: a device may have no room for all of them
            total = jax.tree.map(operator.add, total, self._arrays(step, **{item: like})[item])
        return jax.tree.map(lambda leaf: leaf / len(steps), total)

    def _refuse_corruption(self, step):
        if found := distributed.broadcast_value(functools.partial(self._find_corruption, step)):
            raise UserError(f"{self._folder / str(step)} is damaged ({found}); train again from what is left")

    def close(self) -> None:
        """Waits for what is being saved."""
        if self._manager is None:
            return
        with self._on_disk():
            self._manager.wait_until_finished()
        self._manager.close()

    def tidy(self) -> None:
        """Deletes what was not finished; only who writes here may call it, with nothing being saved."""
        if self._manager is not None:
            for folder in self._folder.glob(_UNFINISHED):
                shutil.rmtree(folder)

    @contextlib.contextmanager
    def _on_disk(self):
        try:
            yield
        except (OSError, ValueError) as error:  # tensorstore's are of the latter kind
            if not any(said in str(error) for said in _FULL):
                raise
            self.tidy()
            last = max((int(path.name) for path in self._folder.iterdir() if is_step(path.name)), default=None)
            kept = "from the beginning" if last is None else f"from the checkpoint of step {last}"
            raise UserError(
                f"no space left for a checkpoint in {self._folder}; free some and start the same command again: "
                f"it goes on {kept}"
            ) from error


def _same_bits(one, other) -> bool:
    one, other = (np.ascontiguousarray(array).reshape(-1) for array in (one, other))
    return one.dtype == other.dtype and np.array_equal(one.view(np.uint8), other.view(np.uint8))


def _refuse_file_limit(*items):
    """Raises UserError where a file may not be as large as an item: orbax would say so in a hundred lines."""
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    needed = max(sum(leaf.nbytes for leaf in jax.tree.leaves(item)) for item in items)
    if most != resource.RLIM_INFINITY and most < needed:
        raise UserError(
            f"a checkpoint needs a file of {needed:,} bytes, and `ulimit -f` allows {most:,}; raise that limit"
        )
