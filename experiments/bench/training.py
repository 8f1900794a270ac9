"""`python -m experiments.bench train` and `memory`: our training step and PyTorch's on the same sentences."""

import contextlib
import functools
import pathlib
import tempfile
from collections.abc import Iterable

from ml_collections import ConfigDict

import tx.config
from experiments import points
from experiments.bench.contestants import bundle
from experiments.bench.harness import machine, rounds, sentences
from experiments.bench.harness.contestant import Contestant, cores, need
from experiments.bench.harness.rounds import say
from tx.errors import UserError
from tx.model.flops import forward_flops, parameter_count

OURS = "tx"
MODES = {  # of PyTorch: (label, layers of `contestants/torch_model.py`, whether torch.compile is used)
    "eager": ("nn.Transformer", "Library", False),
    "compiled": ("nn.Transformer compiled", "Library", True),
    "tuned": ("PyTorch tuned", "Tuned", False),
    "tuned-compiled": ("PyTorch tuned compiled", "Tuned", True),
}
TRIAL = {"cpu": 20_000, "gpu": 250_000}  # target tokens that a layout is tried on, or all of a round, or two updates
# Layouts tried for PyTorch: (size of an update against ours, parts that an update is computed in).
LAYOUTS = {"cpu": ((1, 1), (1, 2), (1, 4), (0.5, 1), (2, 1), (4, 1)), "gpu": ((1, 1), (1, 2))}


# The values of fields that PyTorch's model and its update can take; None: any.
HELD = {
    **{f"model.{name}": (value,) for name, value in bundle.HELD.items()},
    "model.decoder_layers": None,  # any
    "model.norm": ("post", "pre"),
    "model.dtype": None,
    "model.positions": ("sinusoidal",),
    "model.drop_residual": (True,),
    "model.drop_embedding": (True,),
    "loss.name": ("label_smoothed",),
    "optim.optimizer": ("adam",),
    "optim.schedule": ("inverse_sqrt",),
    "optim.linear_warmup": (True,),
    "optim.scale_by_width": (True,),
    "optim.clip_norm": (0.0,),
    "train.ema": (0.0,),
}


def refuse_what_torch_lacks(config: ConfigDict, modes: Iterable[str]) -> None:
    """Raises UserError for a configuration that PyTorch would train another model in place of, or by other updates.

    Args:
      config: what is trained.
      modes: among MODES; the library's own module holds less than the one written for speed.
    """
    fields = tx.config.fields(config)
    lacking = [name for name, held in HELD.items() if held is not None and fields[name] not in held]
    whose, instead = "the PyTorch peer", "--peer=none"
    if not lacking and any(MODES[mode][1] == "Library" for mode in modes):
        whose, instead = "nn.Transformer", "--modes=tuned,tuned-compiled"
        model = config.model
        lacking = [f"model.{d}" for d in ("d_k", "d_v") if model.num_heads * model[d] != model.d_model]
        lacking += [] if model.projection_bias else ["model.projection_bias"]
    if modes and lacking:
        found = ", ".join(f"{name}={points.text(fields[name])}" for name in lacking)
        size = f"h={config.model.num_heads}, d_model={config.model.d_model}"
        raise UserError(f"{whose} cannot hold {found} ({size}); change that, or measure with {instead}")


def measure_training(
    config: ConfigDict,
    *,
    peer: str,
    modes: tuple[str, ...],
    count: int,
    threads: int,
    turns: int,
    platform: str = "cpu",
) -> dict:
    """Returns the result of `train`: tokens per second, share of peak, compile time and memory of every contestant.

    Args:
      config: what is trained.
      peer: "torch" or "none".
      modes: of PyTorch, among MODES.
      count: sentences; a round is about one pass over them.
      threads: of every contestant.
      turns: rounds.
      platform: "cpu" or "gpu".
    """
    cores(threads)
    if peer == "torch":
        need("torch", "--peer=torch")
        refuse_what_torch_lacks(config, modes)
    with contextlib.ExitStack() as stack:
        folder, target, text = _write_sentences(stack, config, count)
        modes = modes if peer == "torch" else ()
        contestants, settings, first, tried = _start(stack, config, folder, modes, target, threads, platform)
        peak = _peak(config.model.dtype, peer, threads, platform)
        measured = rounds.take_turns(
            {label: functools.partial(one, "run", target_tokens=target) for label, one in contestants.items()}, turns
        )
        memory = {label: one("memory") for label, one in contestants.items()}
    results = {}
    for label, taken in measured.items():
        each = [_rates(config, one, peak) for one in taken]
        middle = rounds.medians(each)
        if label in first:  # it compiles, the others do not
            compiling = first[label]["seconds"] - first[label]["target_tokens"] / middle["target_tokens_per_s"]
            middle["compile_s"] = max(compiling, 0.0)
        results[label] = {"settings": settings[label], "rounds": each, "median": middle | memory[label]}
    for mode, trials in tried.items():
        for label in results:
            if settings[label].get("mode") == mode:
                results[label]["tried"] = trials
    figures = ("target_tokens_per_s", "tokens_per_s")
    return {
        "kind": "train",
        "what": config.name,
        "config": config.to_dict(),
        "parameters": parameter_count(config.model),
        "sentences": text,
        "target_tokens_a_round": target,
        "matmul_peak": peak,
        "contestants": results,
        "ratios": _ratios(results, figures),
    }


def _start(stack, config, folder, modes, target, threads, platform):
    """Starts ours and PyTorch at the fastest setting of every mode; a first pass compiles.

    Returns, by label, the contestants, their settings and what the first pass gave, but for those that have compiled
    while they were tried; by mode, all that was tried.
    """
    arguments = {"config": config.to_dict(), "folder": folder}
    ours = Contestant(OURS, "contestants.tx_training:Training", arguments, threads, platform)
    contestants = {OURS: stack.enter_context(ours)}
    settings = {OURS: {"rows": config.data.batch_rows, "row_length": config.data.row_length}}
    first = {OURS: contestants[OURS]("run", target_tokens=target)}
    update = first[OURS]["target_tokens"] / first[OURS]["steps"]
    settings[OURS]["update_tokens"] = update
    say(f"{OURS}: {update:.0f} target tokens an update")
    tried, there = {}, {}
    for mode in modes:
        tried[mode], there[mode] = _try_layouts(stack, arguments, mode, update, target, threads, platform)
    for label, chosen in _choices(tried).items():
        settings[label] = chosen
        if one := there.pop(chosen["mode"], None):
            one("layout", update_tokens=chosen["update_tokens"], part_tokens=chosen["part_tokens"])
            one("run", target_tokens=target)
        else:
            one = stack.enter_context(_torch(label, arguments, chosen, threads, platform))
            first[label] = one("run", target_tokens=target)
        contestants[label] = one
    return contestants, settings, first, tried


def measure_memory(
    config: ConfigDict, *, peer: str, modes: tuple[str, ...], steps: int, threads: int, platform: str = "cpu"
) -> dict:
    """Returns the result of `memory`: the peak of a process that only makes `steps` updates, a process each.

    PyTorch computes an update of as many target tokens at once, and again in four parts.
    """
    cores(threads)
    if peer == "torch":
        need("torch", "--peer=torch")
        refuse_what_torch_lacks(config, modes)
    tokens = config.data.batch_rows * config.data.row_length
    results = {}
    with contextlib.ExitStack() as stack:
        # Sentences enough for a few updates: what the corpus itself takes is not a step's memory.
        folder, _, text = _write_sentences(stack, config, 100 + tokens // 4)
        arguments = {"config": config.to_dict(), "folder": folder}
        wanted = max(1, (steps - 1) * tokens)
        with Contestant(OURS, "contestants.tx_training:Training", arguments, threads, platform) as ours:
            ran = ours("run", target_tokens=wanted)
            results[OURS] = {"settings": {"update_tokens": ran["target_tokens"] / ran["steps"]}}
            results[OURS] |= {"rounds": [ours("memory") | {"steps": ran["steps"]}]}
        update = results[OURS]["settings"]["update_tokens"]
        say(f"{OURS}: {results[OURS]['rounds'][0]['peak_mib']:.0f} MiB")
        for mode in modes if peer == "torch" else ():
            for parts in (1, 4):
                label = MODES[mode][0] + (f", {parts} parts" if parts > 1 else "")
                chosen = {"mode": mode, "keep_memory": False, "update_tokens": update, "part_tokens": update / parts}
                with _torch(label, arguments, chosen, threads, platform) as one:
                    ran = one("run", target_tokens=wanted)
                    results[label] = {"settings": chosen, "rounds": [one("memory") | {"steps": ran["steps"]}]}
                say(f"{label}: {results[label]['rounds'][0]['peak_mib']:.0f} MiB")
    for one in results.values():
        one["median"] = rounds.medians(one["rounds"])
    return {
        "kind": "memory",
        "what": config.name,
        "config": config.to_dict(),
        "parameters": parameter_count(config.model),
        "sentences": text,
        "contestants": results,
        "ratios": _ratios(results, ("peak_mib",)),
    }


def _write_sentences(stack, config, count):
    """Returns the folder, its target tokens, and what the sentences are."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    split, text = sentences.choose(config, count, say)
    sentences.save(split, pathlib.Path(folder))
    say(text)
    return folder, int(split.tgt_offsets[-1]), text


def _torch(label, arguments, chosen, threads, platform):
    """Starts PyTorch with the settings `chosen`."""
    _, layers, compiled = MODES[chosen["mode"]]
    more = {"layers": layers, "compiled": compiled, "keep_memory": chosen["keep_memory"]}
    more |= {"threads": threads, "platform": platform}
    one = Contestant(label, "contestants.torch_training:Training", arguments | more, threads, platform)
    try:
        one("layout", update_tokens=chosen["update_tokens"], part_tokens=chosen["part_tokens"])
    except BaseException:
        one.close()
        raise
    return one


def _try_layouts(stack, arguments, mode, update, target, threads, platform):
    """Returns every setting that was tried, with the target tokens per second it reached; on a GPU also the process
    that did it, else None.

    First, on a CPU, whether keeping freed memory helps, with the plain layout; then the other layouts with what was
    better. What is not tuned has memory as PyTorch leaves it. On a CPU what was tried leaves its memory behind, so that
    the measurement starts another process; on a GPU it would compile again.
    """
    label, layers, _ = MODES[mode]
    trials = []

    def attempt(one, keep, size, parts):
        sizes = {"update_tokens": size * update, "part_tokens": size * update / parts}
        one("layout", **sizes)
        wanted = max(min(target, TRIAL[platform]), 2 * size * update)
        one("run", target_tokens=wanted)  # compiles
        ran = one("run", target_tokens=wanted)
        rate = ran["target_tokens"] / ran["seconds"]
        setting = {"mode": mode, "keep_memory": keep, "size": size, "parts": parts}
        trials.append(setting | sizes | {"target_tokens_per_s": rate})
        say(f"{label}, update x {size} in {parts} parts, freed memory kept: {keep}: {rate:.0f} tokens/s")

    plain = {"mode": mode, "update_tokens": update, "part_tokens": update}
    if platform == "gpu":
        one = stack.enter_context(_torch(label, arguments, plain | {"keep_memory": False}, threads, platform))
        for layout in LAYOUTS[platform]:
            attempt(one, False, *layout)
        return trials, one
    for keep in (False, True) if layers == "Tuned" else (False,):
        with _torch(label, arguments, plain | {"keep_memory": keep}, threads, platform) as one:
            attempt(one, keep, *LAYOUTS[platform][0])
    keep = max(trials, key=_rate)["keep_memory"]
    with _torch(label, arguments, plain | {"keep_memory": keep}, threads, platform) as one:
        for layout in LAYOUTS[platform][1:]:
            attempt(one, keep, *layout)
    return trials, None


def _rate(trial):
    return trial["target_tokens_per_s"]


def _choices(tried):
    """Returns {label: setting}: of each mode the fastest with updates of our size, and of all if that is another."""
    chosen = {}
    for mode, trials in tried.items():
        chosen[MODES[mode][0]] = max((trial for trial in trials if trial["size"] == 1), key=_rate)
    everything = [trial for trials in tried.values() for trial in trials]
    if everything and (best := max(everything, key=_rate))["size"] != 1:
        chosen[f"{MODES[best['mode']][0]}, updates x {best['size']}"] = best
    return chosen


def _peak(dtype, peer, threads, platform):
    """Measures what products of matrices reach in each library; see `machine.matmul_peak`."""
    libraries = [library for library in ("jax", peer) if library != "none"]
    libraries += ["numpy"] if (platform, dtype) == ("cpu", "float32") else []
    return machine.matmul_peak(libraries, threads, platform=platform, dtype=dtype)


def _rates(config, one, peak):
    """Adds what follows from a round's counts and seconds."""
    seconds, source, target = one["seconds"], one["source_tokens"], one["target_tokens"]
    flops = 3 * forward_flops(config.model, source, target) / seconds
    rates = one | {
        "target_tokens_per_s": target / seconds,
        "tokens_per_s": (source + target) / seconds,
        "flops_per_s": flops,
        "share_of_peak": flops / peak["flops"],
        "padding_share": 1 - (source + target) / one["positions"],
        "batching_share": one["batching_s"] / seconds,
    }
    return rates | ({"mfu": flops / peak["dense"]} if peak["dense"] else {})


def _ratios(results, figures):
    ours = results[OURS]["rounds"]
    return {
        label: {figure: rounds.ratio(ours, one["rounds"], figure) for figure in figures}
        for label, one in results.items()
        if label != OURS
    }
