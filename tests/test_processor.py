"""The processor: generations that a virtual machine calls by one name are told apart."""

import pathlib
import platform

import pytest
from numpy._core import _multiarray_umath

from tx.runtime import processor as module
from tx.runtime.processor import processor

X86 = "vendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\nflags\t\t: fpu sse2 avx {}\n\n"
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (X86.format("AuthenticAMD", 25, 1, "AMD EPYC", "avx2 fma"), "AMD EPYC (AVX2, family 25 model 1)"),
        (X86.format("AuthenticAMD", 25, 17, "AMD EPYC", "avx2 avx512f"), "AMD EPYC (AVX-512, family 25 model 17)"),
        (X86.format("GenuineIntel", 6, 143, "Xeon", "avx512f avx2 amx_tile"), "Xeon (AMX, family 6 model 143)"),
        (X86.format("GenuineIntel", 6, 62, "Xeon", "erms"), "Xeon (AVX, family 6 model 62)"),
        (X86.format("GenuineIntel", 6, 37, "Xeon", "").replace("avx", ""), "Xeon (family 6 model 37)"),
        ("processor\t: 0\nmodel name\t: one\n\nprocessor\t: 1\nmodel name\t: two\nflags\t: avx\n", "one"),
        (ARM, "Neoverse"),
        ("", "Neoverse"),
        (None, "Neoverse"),
    ],
)
def test_a_processor_by_what_linux_says_of_it(tmp_path, monkeypatch, text, kind):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(module, "_CPUINFO", file)
    monkeypatch.setattr(platform, "processor", lambda: "Neoverse")
    assert processor() == kind


def test_this_machines_vectors_are_those_that_numpy_finds():
    if not pathlib.Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64":
        pytest.skip("not Linux on x86")
    found = _multiarray_umath.__cpu_features__
    wide = found["AVX512F"]
    assert any(name in processor() for name in ("AVX-512", "AMX")) == wide
    assert ("AVX2" in processor()) == (found["AVX2"] and not wide)
