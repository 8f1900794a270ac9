"""Environment of a process: what of it reaches JAX and the compiler, and so may change numbers, is refused or recorded.

Refused is what changes the types of parameters or what is drawn: such a run is none of this project's. Everything else
is left to whoever sets it, and stands in result.json.
"""

import os

from tx.errors import UserError
from tx.runtime.determinism import DETERMINISTIC

# Of a process that is one of several (`tx.runtime.distributed`).
COORDINATOR, PROCESSES, PROCESS = VARIABLES = ("TX_COORDINATOR", "TX_PROCESSES", "TX_PROCESS")

_USUAL = {  # settings of JAX, and what every result is made with
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
}
_FLAGS = "XLA_FLAGS"
_RECORDED = (
    *(_FLAGS, "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "TF_CUDNN_DETERMINISTIC"),
    *(f"{library}_{name}" for library in ("ONEDNN", "DNNL") for name in ("MAX_CPU_ISA", "DEFAULT_FPMATH_MODE")),
)
# Where compiled programs are kept, which launchers set, and the platform, which stands under "device".
_NOT_RECORDED = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", "JAX_ENABLE_COMPILATION_CACHE", "JAX_PLATFORMS")


def refuse_other_numbers() -> None:
    """Raises UserError where JAX is set to other types or draws, by its environment or by a file of --import."""
    import jax

    for name, usual in _USUAL.items():
        if (value := getattr(jax.config, name, usual)) != usual:
            raise UserError(
                f"{name.upper()}={value} is set: it changes products, the types of parameters or what is drawn, and no "
                f"result could be compared with others; unset it (every result is made with {usual})"
            )


def recorded(deterministic: bool = False) -> dict[str, str]:
    """Returns {variable: value} of what is set beyond what the project sets itself; mostly {}.

    Args:
      deterministic: whether the run's configuration has the project add a flag (`tx.runtime.determinism.fix`).
    """
    found = {
        name: value
        for name, value in sorted(os.environ.items())
        if name in _RECORDED or (name.startswith("JAX_") and not name.startswith(_NOT_RECORDED))
    }
    if deterministic and _FLAGS in found:
        found[_FLAGS] = " ".join(flag for flag in found[_FLAGS].split() if flag != DETERMINISTIC)
    return {name: value for name, value in found.items() if value}
