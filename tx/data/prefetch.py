"""Prefetch of packed rows, planned in a process of their own: a fast device must not wait for Python.

    python -m tx.data.prefetch

reads a plan and a pool from standard input, pickled, and writes the rows of that pool and of all that follow to
standard output, until nobody reads them. A pipe holds a few pools at most, and so much is planned ahead.

The standard library's processes do not serve here. Those that are spawned, or come from its fork server, import the
main module anew, which is `tx.train` with all of JAX: the first pool came after 4.3 s instead of 0.6 s, from 211 MiB
instead of 42 MiB, for each run of a group. A fork of a process with JAX's threads may wait for ever. And the workers of
a pool of processes go on for ever where the one that started them is killed.
"""

import contextlib
import pickle
import subprocess
import sys
from typing import Any


class Ahead:
    """Plan (`tx.data.loader.Plan`) whose rows another process makes in advance; best asked in the order of pools.

    Args:
      plan: what makes the rows.
    """

    def __init__(self, plan: Any):
        self._plan, self._process, self._next = plan, None, None
        self.after = plan.after

    def rows(self, epoch: int, pool: int) -> list[list[int]]:
        """Returns the rows of a pool, as the plan does; RuntimeError where the other process has broken off."""
        if self._next != (epoch, pool):
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tx.data.prefetch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # what interrupts this process is not meant for that one
            )
            with contextlib.suppress(BrokenPipeError), self._process.stdin as asked:  # it is told below
                pickle.dump((self._plan, epoch, pool), asked)
        self._next = self._plan.after(epoch, pool)
        try:
            return pickle.load(self._process.stdout)
        except EOFError:
            raise RuntimeError(f"planning broke off with status {self._process.wait()}") from None

    def close(self) -> None:
        """Ends the other process; the next call of `rows` starts one."""
        if self._process is not None:
            self._process.stdout.close()
            self._process.kill()
            self._process.wait()
        self._process, self._next = None, None


def main() -> None:
    """Writes the rows of a pool and of all that follow, until nobody reads them."""
    plan, epoch, pool = pickle.load(sys.stdin.buffer)
    try:
        while True:
            pickle.dump(plan.rows(epoch, pool), sys.stdout.buffer)
            sys.stdout.buffer.flush()
            epoch, pool = plan.after(epoch, pool)
    except BrokenPipeError:
        sys.stdout = None  # else it would be flushed, and fail, once more


if __name__ == "__main__":
    main()
