"""Compilers for accelerators: the Python that has the one for a target, and which version it is."""

import functools
import importlib.metadata
import os
import pathlib
import subprocess
import sys

from experiments.bench.harness.contestant import ROOT
from experiments.bench.harness.targets import TARGETS
from tx.errors import UserError
from tx.files import from_json

VARIABLE = "TX_COMPILE_PYTHON"  # the Python that compiles; empty: none
PACKAGES = ("jax-cuda13-plugin", "jax-cuda12-plugin", "libtpu")
_OF_PLATFORM = {"gpu": PACKAGES[:2], "tpu": PACKAGES[2:]}
_ASK = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"


def python(target: str) -> str:
    """Returns the Python that compiles for a target: $TX_COMPILE_PYTHON, this one, or that of `make compile-venv`.

    Raises UserError, saying what to install, where none of them has the compiler.
    """
    named = os.environ.get(VARIABLE)
    here = [sys.executable, str(ROOT / ".venv-compile" / "bin" / "python")]
    for candidate in [named] if named else here if named is None else []:
        if set(versions(candidate)) & set(_OF_PLATFORM[TARGETS[target].platform]):
            return candidate
    extra = "pip install -e '.[tpu]' in the checkout, or " if TARGETS[target].platform == "tpu" else ""
    raise UserError(f"no compiler for {target} is installed: {extra}make compile-venv")


def versions(interpreter: str) -> dict[str, str]:
    """Returns {package: version} of the compilers that a Python has; {} where it cannot be started."""
    return {name: version for name, version in _installed(interpreter).items() if name in PACKAGES}


def toolchain(interpreter: str) -> dict[str, str]:
    """Returns {package: version} of all that a program which a Python compiles depends on, but this project's code."""
    wanted = {*PACKAGES, "jax", "jaxlib", "flax", "optax"}
    return {name: version for name, version in sorted(_installed(interpreter).items()) if name in wanted}


@functools.cache
def _installed(interpreter):
    if interpreter == sys.executable:
        return {one.name: one.version for one in importlib.metadata.distributions()}
    if not pathlib.Path(interpreter).exists():
        return {}
    asked = subprocess.run([interpreter, "-c", _ASK], capture_output=True, text=True, check=False)
    return from_json(asked.stdout) if asked.returncode == 0 else {}
