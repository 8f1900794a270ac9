"""NVIDIA's Multi-Process Service: kernels of several processes side by side on a card, where it is installed.

Without it the driver gives the card to one process at a time. With it seven rows of table3@multi30k, five seeds each,
made their steps on an H100 in about the time that the card's memory takes for their bytes.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

CONTROL = "nvidia-cuda-mps-control"
WHERE = "/usr/local/nvidia/bin"  # where containers have the driver's programs, which is not always in PATH
SECONDS = 20.0  # for the daemon to answer


@contextlib.contextmanager
def side_by_side(folder: pathlib.Path) -> Iterator[bool]:
    """Within it, processes that are started share the card by the service; yields whether it runs.

    Nothing is set on the card itself; the daemon ends with the context.

    Args:
      folder: for the daemon's pipes and logs.
    """
    control = shutil.which(CONTROL, path=f"{os.environ.get('PATH', '')}:{WHERE}")
    variables = {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    folder.mkdir(parents=True, exist_ok=True)
    if control is None or not _ran([control, "-d"], variables):
        yield False
        return
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield True
    finally:
        _ran([control], variables, "quit\n")
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _ran(command, variables, said=""):
    # Not captured: the daemon keeps what it was given open, and a pipe would then never end.
    try:
        subprocess.run(
            command,
            env=os.environ | variables,
            input=said.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True
