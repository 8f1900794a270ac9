"""Accelerators that programs are compiled for without being there: what their makers print, and how JAX is told."""

import dataclasses
import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from tx.errors import UserError

# What XLA asks a card for when it is there, of one with Hopper's chip.
_HOPPER = """
gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {bandwidth}
l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: {memory} shared_memory_per_block_optin: 232448
cuda_compute_capability {{ major: 9 minor: 0 }} registers_per_core_limit: 65536 registers_per_block_limit: 65536 }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 patch: 1 }} device_description_str: "sm_90"
"""
_CUDNN = 91001  # the version above, as cuDNN itself writes it


@dataclasses.dataclass(frozen=True)
class Target:
    """Accelerator.

    Attributes:
      platform: as JAX names its backend, "gpu" or "tpu".
      plugins: modules of which one has to be installed.
      bandwidth: of its memory, bytes per second.
      peak: operations per second of dense bfloat16 products.
      memory: bytes.
      launch: seconds from one kernel to the next at least; a TPU's program is one launch.
      topologies: {devices: what JAX calls so many of them}.
    """

    platform: str
    plugins: tuple[str, ...]
    bandwidth: float
    peak: float
    memory: float
    launch: float
    topologies: Mapping[int, str] = dataclasses.field(default_factory=dict)


_CUDA = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
_CARDS = {count: f"1x1x{count}" for count in (1, 2, 4, 8)}
# Of TPUs the least that libtpu describes is a board of four.
_CHIPS = {4: "v5e:2x2", 8: "v5e:2x4", 16: "v5e:4x4", 32: "v5e:4x8", 64: "v5e:8x8", 128: "v5e:8x16", 256: "v5e:16x16"}
TARGETS = {
    "h100": Target("gpu", _CUDA, 3.35e12, 989e12, 80e9, 1.5e-6, _CARDS),
    "h200": Target("gpu", _CUDA, 4.8e12, 989e12, 141e9, 1.5e-6, _CARDS),
    "v5e": Target("tpu", ("libtpu",), 0.819e12, 197e12, 16e9, 0.0, _CHIPS),
}


def refuse_missing(name: str) -> None:
    """Raises UserError where nothing is installed that compiles for a target."""
    if not any(_is_there(plugin) for plugin in TARGETS[name].plugins):
        raise UserError(
            f"--target={name} needs {' or '.join(TARGETS[name].plugins)}, which is not installed; make compile-venv "
            "makes an environment that has it: .venv-compile/bin/python -m experiments.bench compile ..."
        )


def _is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def set_variables() -> None:
    """Sets what the compiler reads when it starts: no kernel is to be tried out, since there is nothing to do so on."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # no chip is taken: several may compile side by side


def devices(name: str, count: int) -> list[Any]:
    """Returns so many devices that arrays can be said to lie on; nothing can be computed there.

    Raises UserError where so many are not described.
    """
    from jax.experimental import topologies

    target = TARGETS[name]
    if not (enough := [size for size in target.topologies if size >= count]):
        raise UserError(f"{count} {name} are more than the {max(target.topologies)} that can be compiled for")
    topology = target.topologies[min(enough)]
    if target.platform == "tpu":
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[:count]
    import jax._src.cudnn.fused_attention_stablehlo as fused_attention

    fused_attention.check_cudnn_version = lambda: _CUDNN  # it would ask the library, which is not there
    described = _HOPPER.format(bandwidth=int(target.bandwidth), memory=int(target.memory))
    options = {"topology": topology, "target_config": described}
    return topologies.get_topology_desc(platform="cuda", topology_name="", **options).devices[:count]
