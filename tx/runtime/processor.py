"""Processor: its name, and what of it decides in which order XLA adds.

A virtual machine calls processors of several generations by one name ("AMD EPYC"). Programs are compiled for the vector
instructions that there are, and products are cut to the caches, so two of them agree up to rounding only.
"""

import pathlib
import platform

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_VECTORS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}  # by flag; the widest first


def processor() -> str:
    """Returns this machine's, such as "AMD EPYC (AVX2, family 25 model 1)"; without Linux and x86 its name alone."""
    try:
        first = _CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        first = ""
    pairs = (line.partition(":")[::2] for line in first.splitlines())
    fields = {name.strip(): value.strip() for name, value in pairs}
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = fields.get("flags", "").split()
    vectors = [label for flag, label in _VECTORS.items() if flag in flags][:1]
    known = {"cpu family", "model"} <= fields.keys()
    generation = [f"family {fields['cpu family']} model {fields['model']}"] if known else []
    return f"{name} ({', '.join(vectors + generation)})" if vectors or generation else name
