"""Checkpoints: the training state and the position in the data, saved together by orbax.

A checkpoint holds whole arrays as one device has them, so it can be continued on any other number of devices. It is
sealed by a digest of every file before it gets its final name, since orbax restores most damaged files without a word:
one that is not as it was sealed is never opened.
"""

import contextlib
import os
import pathlib
import shutil
import sys
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp

from tx import digests, processes
from tx.errors import UserError, printable

_UNFINISHED = "*.orbax-checkpoint-tmp*"
# What orbax writes after the seal; it restores the same whatever they hold.
APART = ("_CHECKPOINT_METADATA", "commit_success.txt")


class Checkpoints:
    """The checkpoints of one run. Of many processes the first one writes and reads, and tells the others.

    Args:
      folder: where they lie, one folder a step.
      keep: how many of the newest stay on disk.
    """

    def __init__(self, folder: pathlib.Path, keep: int | None = None):
        if not processes.first():
            self._manager = None
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.resolve()
        alone = ocp.options.MultiprocessingOptions(active_processes={0})
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=False,
            multiprocessing_options=alone,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, step: int, state, position: dict) -> None:
        """Saves in the background; a checkpoint appears under its final name once it is whole and sealed.

        Args:
          step: its number.
          state: whole arrays, on this process's first device.
          position: in the data.
        """
        if self._manager is None:
            return
        if jax.process_count() > 1:
            state = jax.tree.map(np.asarray, state)  # orbax takes a device's arrays for parts of something bigger
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(position))
        with self._on_disk():
            self._manager.save(step, args=items)  # raises, too, what was wrong with the one before

    def restore(self, like, step: int | None = None) -> tuple[object, dict] | None:
        """Returns (state, position) of a step (the newest by default), or None where there is no checkpoint.

        The arrays are whole, on this process's first device or in memory.

        Args:
          like: a state, or its jax.eval_shape, with the shapes to expect.
        """
        found = self._read(like, step) if processes.first() else None
        position = processes.agreed(lambda: found and found[1])
        return None if position is None else (processes.shared(found[0] if found else like), position)

    def _read(self, like, step):
        step = self._manager.latest_step() if step is None else step
        if step is None:
            return None
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # orbax advises on sharding files, which one host does not need
            restored = self._manager.restore(step, args=items)
        return restored["state"], restored["data"]

    def steps(self) -> list[int]:
        """Returns the steps that there are checkpoints of, in order."""
        return processes.agreed(lambda: sorted(self._manager.all_steps()))

    def _seal(self):
        """Called by orbax when all files of a checkpoint are written, just before it is given its final name."""
        for folder in self._folder.glob(_UNFINISHED):
            digests.seal(folder, apart=APART)

    def sound(self, step: int) -> bool:
        """Returns whether a checkpoint is as it was written; one that is not is set aside, with a warning."""
        return processes.agreed(lambda: self._sound(step))

    def _sound(self, step):
        found = self._damage(step)
        if found:
            aside = self._folder.parent / "damaged" / f"{step}.{os.getpid()}"
            aside.parent.mkdir(exist_ok=True)
            (self._folder / str(step)).rename(aside)
            self._manager.reload()
            warning = f"warning: checkpoint {step} is damaged ({found}); set aside as {aside}"
            print(printable(warning), file=sys.stderr, flush=True)
        return not found

    def _damage(self, step):
        return digests.damage(self._folder / str(step), apart=APART)

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, so that these can be saved anew."""
        for later in self.steps():
            if later > step and self._manager is not None:
                self._manager.delete(later)

    def average(self, like, last: int):
        """Returns the mean of the parameters of the `last` newest checkpoints (section 6.1).

        Raises UserError where there are fewer, or one of them is damaged.
        """
        steps = self.steps()[-last:]
        if len(steps) < last:
            raise UserError(f"averaging {last} checkpoints, but {self._manager.directory} holds {len(steps)}")
        for step in steps:
            if found := self._damage(step):
                raise UserError(f"{self._folder / str(step)} is damaged ({found}); train again from what is left")
        trees = [self.restore(like, step)[0].params for step in steps]
        return jax.tree.map(lambda *leaves: sum(leaves) / last, *trees)

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
            if "No space left" not in str(error) and "quota exceeded" not in str(error):
                raise
            self.tidy()
            last = max((int(path.name) for path in self._folder.iterdir() if path.name.isdigit()), default=None)
            kept = "from the beginning" if last is None else f"from the checkpoint of step {last}"
            raise UserError(
                f"no space left for a checkpoint in {self._folder}; free some and start the same command again: "
                f"it goes on {kept}"
            ) from error
