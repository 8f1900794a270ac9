"""On which backend JAX will compute is told before it starts; what follows from it is asked in one place."""

import os
import pathlib
import re

import jax
import pytest
import tiny

from tx.runtime import backend, determinism

ROOT = pathlib.Path(__file__).resolve().parent.parent
GPU, TPU = ["/dev/nvidia0"], ["/dev/accel0"]


def machine(monkeypatch, devices, plugins, **variables):
    """Stands for a machine with these files of devices and these plugins of JAX."""
    monkeypatch.setattr(
        backend.glob, "glob", lambda pattern: [path for path in devices if path.startswith(pattern.partition("[")[0])]
    )
    monkeypatch.setattr(backend, "_cuda_plugin", lambda: "cuda" in plugins)
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: "there" if name in plugins else None)
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("devices", "plugins", "variables", "cpu"),
    [
        ([], [], {}, True),
        (GPU, ["cuda"], {}, False),
        (GPU, ["cuda"], {"JAX_PLATFORMS": ""}, False),
        (GPU, [], {}, True),  # JAX was installed without CUDA
        ([], ["cuda"], {}, True),
        (GPU, ["cuda"], {"CUDA_VISIBLE_DEVICES": ""}, True),
        (GPU, ["cuda"], {"CUDA_VISIBLE_DEVICES": "-1"}, True),
        (GPU, ["cuda"], {"CUDA_VISIBLE_DEVICES": "GPU-5f"}, False),
        (GPU, ["cuda"], {"JAX_PLATFORMS": "cpu"}, True),
        (GPU, ["cuda"], {"JAX_PLATFORMS": "cpu,cuda"}, True),
        ([], [], {"JAX_PLATFORMS": "cuda,cpu"}, False),  # JAX fails there rather than computing on the CPU
        (TPU, ["libtpu"], {}, False),
        (TPU, [], {}, True),
        (TPU, ["libtpu"], {"JAX_PLATFORMS": "cpu"}, True),
    ],
)
def test_the_threads_are_fixed_on_a_cpu_alone(monkeypatch, devices, plugins, variables, cpu):
    machine(monkeypatch, devices, plugins, **variables)
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    assert backend.computes_on_cpu() == cpu
    determinism.fix(tiny.config(parallel__threads=3).parallel)
    assert os.environ.get("PJRT_NPROC") == ("3" if cpu else None)


@pytest.mark.parametrize(
    ("devices", "plugins", "variables", "names"),
    [
        (["/dev/nvidia0", "/dev/nvidia1"], ["cuda"], {}, ["0", "1"]),
        (["/dev/nvidia2", "/dev/nvidia10"], ["cuda"], {}, ["0", "1"]),  # in a container that has the files of two alone
        (GPU, [], {}, []),
        (GPU, ["cuda"], {"CUDA_VISIBLE_DEVICES": "3, 1"}, ["3", "1"]),
        (GPU, ["cuda"], {"CUDA_VISIBLE_DEVICES": "MIG-7/1/0,GPU-5f"}, ["MIG-7/1/0", "GPU-5f"]),
        (GPU, ["cuda"], {"CUDA_VISIBLE_DEVICES": ""}, []),
        (GPU, ["cuda"], {"CUDA_VISIBLE_DEVICES": "-1"}, []),
        (GPU, ["cuda"], {"CUDA_VISIBLE_DEVICES": "2,-1,3"}, ["2"]),
        (GPU, ["cuda"], {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
        (GPU, ["cuda"], {"JAX_PLATFORMS": "cuda,cpu"}, ["0"]),
        (GPU, ["cuda"], {"JAX_PLATFORMS": "cpu,cuda"}, []),
        (GPU, ["cuda"], {"JAX_PLATFORMS": "tpu"}, []),
    ],
)
def test_gpus_are_those_that_jax_may_compute_on_as_cuda_names_them(monkeypatch, devices, plugins, variables, names):
    machine(monkeypatch, devices, plugins, **variables)
    assert backend.gpus() == names


@pytest.mark.parametrize(
    ("plugins", "variables", "devices"),
    [(["libtpu"], {}, TPU), ([], {}, []), (["libtpu"], {"JAX_PLATFORMS": "cpu,tpu"}, [])],
)
def test_tpus_are_those_that_jax_may_compute_on(monkeypatch, plugins, variables, devices):
    machine(monkeypatch, TPU, plugins, **variables)
    assert backend.tpus() == devices


def test_here_it_tells_what_jax_says():
    assert backend.computes_on_cpu() == backend.on_cpu()


@pytest.mark.parametrize(("modules", "there"), [((), False), (("xla_rocm7",), False), (("xla_cuda12",), True)])
def test_the_plugin_is_looked_for_where_jax_does(monkeypatch, tmp_path, modules, there):
    for name in modules:
        (tmp_path / "jax_plugins" / name).mkdir(parents=True)
        (tmp_path / "jax_plugins" / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert backend._cuda_plugin() == there


def test_kernels_that_give_equal_bits_are_for_those_who_ask(monkeypatch):
    monkeypatch.setenv("PJRT_NPROC", os.environ.get("PJRT_NPROC", ""))
    monkeypatch.setenv("XLA_FLAGS", "--xla_one")
    determinism.fix(tiny.config().parallel)
    assert os.environ["XLA_FLAGS"] == "--xla_one"
    determinism.fix(tiny.config(parallel__deterministic=True).parallel)
    assert os.environ["XLA_FLAGS"] == "--xla_one --xla_gpu_deterministic_ops=true"


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("tokens", [64, 8192, 10**6])
def test_batches_that_are_translated_at_once_hold_what_was_asked_for(threads, tokens, monkeypatch):
    each, workers = backend.decoding_tokens(tokens, threads), backend.decoding_workers(threads)
    assert 0 < each * workers <= tokens
    assert each <= backend.TOKENS
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert backend.decoding_tokens(tokens, threads) == tokens  # in one batch: small ones would leave the device idle


def test_nothing_else_asks_on_which_backend_it_is():
    names = r"default_backend|get_backend|platform_dependent|\]\.platform\b|\]\.device_kind\b"
    asked = re.compile(names + r"|os\.environ.*JAX_PLATFORMS|/dev/nvidia|/dev/accel")
    files = [path for package in ("tx", "launch") for path in (ROOT / package).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix() for path in files if asked.search(path.read_text(encoding="utf-8"))}
    # The second starts others, and says where; the third records on what a run is computed, and chooses nothing.
    assert found == {"tx/runtime/backend.py", "launch/gpu/session.py", "tx/runs/provenance.py"}
