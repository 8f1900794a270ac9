"""Checkpoints: the training state and the position in the data, saved together by orbax."""

import pathlib
import warnings

import jax
import orbax.checkpoint as ocp

from tx.errors import UserError


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: where they lie, one folder a step.
      keep: how many of the newest stay on disk.
    """

    def __init__(self, folder: pathlib.Path, keep: int | None = None):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, step: int, state, position: dict) -> None:
        """Saves in the background; a checkpoint appears under its final name once it is whole."""
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(position))
        self._manager.save(step, args=items)

    def restore(self, like, step: int | None = None) -> tuple[object, dict] | None:
        """Returns (state, position) of a step (the newest by default), or None where there is no checkpoint.

        Args:
          like: a state, or its jax.eval_shape, with the shapes to expect.
        """
        step = self._manager.latest_step() if step is None else step
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # orbax advises on sharding files, which one host does not need
            restored = self._manager.restore(step, args=items)
        return restored["state"], restored["data"]

    def steps(self) -> list[int]:
        """Returns the steps that there are checkpoints of, in order."""
        return sorted(self._manager.all_steps())

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, so that these can be saved anew."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def average(self, like, last: int):
        """Returns the mean of the parameters of the `last` newest checkpoints (section 6.1).

        Raises UserError where there are fewer.
        """
        steps = self.steps()[-last:]
        if len(steps) < last:
            raise UserError(f"averaging {last} checkpoints, but {self._manager.directory} holds {len(steps)}")
        trees = [self.restore(like, step)[0].params for step in steps]
        return jax.tree.map(lambda *leaves: sum(leaves) / last, *trees)

    def close(self) -> None:
        """Waits for what is being saved."""
        self._manager.wait_until_finished()
        self._manager.close()
