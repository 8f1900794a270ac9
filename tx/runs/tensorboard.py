"""Event files of TensorBoard: a run's metrics for people to look at.

TensorBoard's own writer hands each number to a thread and opens the file for it: too slow to write a long run anew.
"""

import os
import pathlib
import socket
import time

import numpy as np

NAME = "events.out.tfevents."  # what the name of such a file begins with


class Events:
    """Event file of its own, for one process.

    Args:
      folder: where TensorBoard looks, made where it is missing.
    """

    def __init__(self, folder: pathlib.Path):
        # Slow to import, and only training writes events.
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._scalar = Event, scalar_pb
        seconds, rest = divmod(time.time_ns(), 10**9)
        folder.mkdir(exist_ok=True)
        self._file = (folder / f"{NAME}{seconds:010}.{socket.gethostname()}.{os.getpid()}.{rest:09}").open("xb")
        self._records = RecordWriter(self._file)
        self._records.write(Event(wall_time=seconds, file_version="brain.Event:2").SerializeToString())

    def add(self, step: int, values: dict[str, float], when: float) -> None:
        """Writes scalars by name; they are sure to be on file after `flush`.

        Args:
          when: seconds since 1970.
        """
        event = self._event(wall_time=when, step=step)
        with np.errstate(over="ignore"):  # a float32 has no room for what has diverged: infinite
            for name, value in values.items():
                event.summary.MergeFrom(self._scalar(name, value))
        self._records.write(event.SerializeToString())

    def add_summary(self, summary, when: float) -> None:
        """Writes a summary of one of TensorBoard's plugins, at step 0; `when` as for `add`."""
        self._records.write(self._event(wall_time=when, step=0, summary=summary).SerializeToString())

    def flush(self) -> None:
        """Writes what was added to the file."""
        self._records.flush()

    def close(self) -> None:
        """Writes what was added, and closes the file."""
        self._records.close()


def delete(folder: pathlib.Path) -> None:
    """Deletes the event files of a folder, and nothing else that lies in it."""
    for file in folder.glob(f"{NAME}*"):
        file.unlink()
