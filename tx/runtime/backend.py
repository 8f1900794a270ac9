"""Choices that differ between a CPU and an accelerator, and what each gains.

Elsewhere only kernels ask on which backend they are, whether to compile or to interpret, and what refuses a setting or
records the device. Some code has a form that a CPU prefers and an accelerator does not mind, and
so has it everywhere: the two-dimensional products of `tx.model.layers.dense`, the transposed gradient of the table in
`tx.model.loss`, the chunks of `tx.decoding.top_k`.
"""

import ctypes
import glob
import importlib.util
import itertools
import os
import pkgutil
import re
import sys

from tx.errors import UserError

# Before JAX starts. What other libraries compute keeps its memory so too, and must not load JAX for it: hence the
# imports inside functions.


def computes_on_cpu() -> bool:
    """Returns whether JAX is going to compute on a CPU, without starting it.

    The first name in $JAX_PLATFORMS decides; where there is none, whether there is an accelerator with its plugin.
    """
    if chosen := _platform():
        return chosen == "cpu"
    return not gpus() and not tpus()


def gpus() -> list[str]:
    """Returns NVIDIA's GPUs that JAX may compute on, as $CUDA_VISIBLE_DEVICES names them; none without its plugin.

    Those that $JAX_PLATFORMS and $CUDA_VISIBLE_DEVICES leave. CUDA numbers what a process sees from 0, whatever the
    numbers in the names of the files: a container may have the file of the last card alone.
    """
    files = glob.glob("/dev/nvidia[0-9]*")
    if not files or _platform() not in ("", "cuda", "gpu") or not _cuda_plugin():
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(len(files))]
    # CUDA goes by the names up to the first that is none: "-1", "NoDevFiles" or nothing at all hide every GPU.
    return list(itertools.takewhile(_NAME.fullmatch, (one.strip() for one in chosen.split(","))))


def tpus() -> list[str]:
    """Returns the devices of TPUs that JAX may compute on; none where $JAX_PLATFORMS says others, or without libtpu."""
    files = glob.glob("/dev/accel[0-9]*")
    return files if files and _platform() in ("", "tpu") and importlib.util.find_spec("libtpu") else []


_NAME = re.compile(r"\d+|(?:GPU|MIG)-.+")  # of a GPU


def _platform():
    """Returns the first name in $JAX_PLATFORMS, which decides where JAX computes; "" where there is none."""
    return os.environ.get("JAX_PLATFORMS", "").split(",")[0].strip()


def _cuda_plugin():
    package = importlib.util.find_spec("jax_plugins")
    names = [module.name for module in pkgutil.iter_modules(package.submodule_search_locations)] if package else []
    return any("cuda" in name for name in names)


# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory(arenas: int = 1) -> None:
    """Makes malloc reuse large blocks; call it before JAX starts.

    On CPU, XLA allocates a step's arrays anew each time. By default glibc maps each large block from the kernel, which
    fills it with zeros page by page: measured on two cores, that made a third of a small model's step. Nothing happens
    where the C library is another.

    Args:
      arenas: from which threads allocate. With one, all that is freed is kept, and threads wait for each other. With
        more, what is larger than 64 MB is kept by the main thread alone: for `ARENAS`.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_ARENA_MAX, arenas)  # an arena that is not the main one has no blocks of over 64 MB to keep
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 * 2**20)


def one_step_at_a_time() -> None:
    """Makes a call of a compiled program on CPU return when it is done; call it before JAX starts.

    JAX would start the next step while one is still being computed, with temporaries of its own: twice the memory, and
    no faster where both use the same cores.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def simulate_devices(count: int) -> None:
    """Makes JAX see so many devices on a CPU, where $XLA_FLAGS does not say how many; call it before JAX starts."""
    import jax

    if computes_on_cpu() and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", count)


def refuse_missing() -> None:
    """Raises UserError where $JAX_PLATFORMS asks for CUDA and JAX has no plugin for it; nothing is started."""
    chosen = os.environ.get("JAX_PLATFORMS", "")
    if "cuda" in [name.strip() for name in chosen.split(",")] and not _cuda_plugin():
        raise UserError(
            f"JAX_PLATFORMS={chosen}, but JAX has no plugin for CUDA here; pip install -e '.[cuda]' in the checkout, "
            "or unset it"
        )


def start() -> None:
    """Starts JAX on its devices; UserError where $JAX_PLATFORMS asks for some that are not there."""
    import jax

    refuse_missing()
    try:
        jax.devices()
    except Exception as error:  # of several kinds, one of them an assertion
        why = (str(error).splitlines() or [type(error).__name__])[0]
        chosen = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX finds no device (JAX_PLATFORMS={chosen}): {why}; set JAX_PLATFORMS=cpu, or unset it"
        ) from error


# Once JAX has started.


_compiled_for = None


def compile_for(platform: str) -> None:
    """Makes this process choose as on another backend, "gpu" or "tpu": it is to compile for one that is not there."""
    global _compiled_for
    _compiled_for = platform


def name() -> str:
    """Returns the backend that JAX computes on, or that is compiled for: "cpu", "gpu" or "tpu"."""
    import jax

    return _compiled_for or jax.default_backend()


def on_cpu() -> bool:
    """Returns whether JAX computes on a CPU."""
    return name() == "cpu"


# The model and its loss.


def joins_projections() -> bool:
    """Returns whether several Dense layers of one input are one matrix product, whose result is cut.

    Not on an accelerator, since there cutting, and joining the gradients, takes longer than one large product gains.
    """
    return on_cpu()


def transposes_kernel_gradient(inputs: int, outputs: int) -> bool:
    """Returns whether the gradient of a Dense kernel is computed as the transpose of the other product.

    On a CPU that is half as fast again, where the inputs are more than the outputs.
    """
    return inputs > outputs and on_cpu()


def computes_keys_apart() -> bool:
    """Returns whether a random key is computed before what is drawn from it, not again for every element.

    Elsewhere than on a CPU a kernel of its own, for two numbers, takes longer.
    """
    return on_cpu()


LOSS_CHUNK = 512  # tokens whose logits exist at a time, on a CPU
# Logits that exist at a time elsewhere: each chunk reads and writes the gradient of the whole table once more.
LOSS_LOGITS = {"xla": 2**28, "pallas": 2**30}  # by model.kernels: those of pallas write them once, in 2 bytes each


def loss_chunk(tokens: int, vocabulary: int, kernels: str = "xla") -> int:
    """Returns how many of the tokens to compute logits of at a time; elsewhere than on a CPU in parts of one size."""
    if on_cpu():
        return LOSS_CHUNK
    return max(1, -(-tokens // -(-tokens * vocabulary // LOSS_LOGITS[kernels])))


# Training.


def training_options() -> dict[str, bool | str] | None:
    """Returns the compiler's options for a training step.

    On a GPU products are the library's, which adds the bias as it goes, rather than Triton's; and products of one input
    stay apart, whose joining costs a pass over weights and a cut of the result. Measured on an H100, in bfloat16: base
    35.7 ms a step rather than 37.4, big 80.3 rather than 84.9.
    """
    if name() != "gpu":
        return None
    return {"xla_gpu_enable_triton_gemm": False, "xla_disable_hlo_passes": "dot-merger"}


LAG = 2  # dispatches that an accelerator may work ahead of being looked at


def dispatches_ahead() -> int:
    """Returns how many dispatches are under way before the losses of the first are looked at.

    An accelerator need not wait for the host then; on a CPU one is done when the call returns (`one_step_at_a_time`).
    """
    return 0 if on_cpu() else LAG


def fetches_stacks() -> bool:
    """Returns whether a stack of runs is brought to memory in one piece before each run's part of it is saved.

    On an accelerator every leaf of every run would else be cut out by the device and fetched by itself, about a second
    a run; on a CPU it is in memory, and what is cut out there is a copy, which the next step leaves alone.
    """
    return not on_cpu()


def plans_ahead() -> bool:
    """Returns whether batches are planned in another process: a fast device must not wait for Python.

    On a CPU that process would take its time from the training.
    """
    return not on_cpu()


# Decoding. Elsewhere than on a CPU a step takes as long for many sentences as for few, and compilations weigh more.

SHAPES = 4  # source lengths that batches are padded to, hence compilations, at most
HALVINGS = 2  # of a batch whose sentences are over, each another compilation (`tx.decoding.beam_search.search`), for
MANY = 500  # sentences or more
FEW = 2  # the SHAPES elsewhere, without HALVINGS
WORKERS = 4  # batches at once on a CPU: together they hold decode.batch_tokens at most
TOKENS = 1024  # of each of these batches at most, so that what a token of beam search touches stays in a core's cache
ARENAS = 8  # of malloc, where batches are translated side by side: two threads waited for one a tenth of their time


def decoding_shapes() -> int:
    """Returns the most source lengths to pad batches to."""
    return SHAPES if on_cpu() else FEW


def decoding_halvings(sentences: int) -> int:
    """Returns how often a batch is cut to half once half of it is over, where so many sentences are translated."""
    return HALVINGS if on_cpu() and sentences >= MANY else 0


def decoding_block(block: int, length: int) -> int:
    """Returns how many of the `length` positions of a cache are attended to at a time, in blocks or all.

    A CPU leaves out the blocks that lie ahead, in a loop. On an accelerator each condition of that loop is a trip to
    the host, for every layer of every token, which costs more than what lies ahead.
    """
    return block if on_cpu() else length


def decodes_by_kernel(kernels: str) -> bool:
    """Returns whether beam search has kernels (tx/kernels), with this `model.kernels`; a CPU has none."""
    return kernels == "pallas" and name() == "gpu"


def decoding_workers(threads: int) -> int:
    """Returns how many batches are translated at once.

    On a CPU several batches side by side, a thread each, beat one after the other with all threads.
    """
    return min(threads, WORKERS) if on_cpu() else 1


def decoding_tokens(batch_tokens: int, threads: int) -> int:
    """Returns the most source tokens of a batch, of which `decoding_workers` hold `batch_tokens` together."""
    return min(batch_tokens // decoding_workers(threads), TOKENS) if on_cpu() else batch_tokens


def decoding_options(kernels: str = "xla") -> dict[str, bool | str] | None:
    """Returns the compiler's options: on a CPU a batch keeps to the thread that it is given (`decoding_workers`).

    With kernels (`decodes_by_kernel`) those of a training step: products add their biases as they go.
    """
    if decodes_by_kernel(kernels):
        return training_options()
    return {"xla_cpu_multi_thread_eigen": False} if on_cpu() else None
