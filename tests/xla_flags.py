"""Flags of XLA that tests set; importing this sets none."""

from importlib import metadata

TWO_DEVICES = "--xla_force_host_platform_device_count=2"

# Compiled in a third of the time; tests compute little with it. A scatter becomes a loop.
PLAIN_CODE = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
# Compiler options without fusion emitters, whose code for scatters takes longest to compile; and with them.
WITHOUT_EMITTERS = {}
if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 12):  # which knows no such flag, and would stop
    WITHOUT_EMITTERS["xla_cpu_use_fusion_emitters"] = False
    PLAIN_CODE += " --xla_cpu_use_fusion_emitters=false"
WITH_EMITTERS = dict.fromkeys(WITHOUT_EMITTERS, True)
