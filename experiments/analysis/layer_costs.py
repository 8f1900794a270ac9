"""`python -m experiments table1`: costs of the mixers of Table 1, measured on their code beside the paper's formulas.

Each is one layer of a decoder, where a position sees the earlier ones, alone: d_model 64, one head, r = 16, k = 3.
"""

import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import rich.console
import rich.text

from experiments.report import tables
from experiments.report.tables import Column, Table
from tx.config import get_config
from tx.errors import UserError, writing
from tx.files import to_json, write_atomically

NAME = "table1"

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
WIDTH, NEIGHBOURHOOD, TAPS = 64, 16, 3
STYLES = (".-", ".-", ".-", ".--", ".-")  # of lines: both convolutions have as many operations
REPEATS = 5  # of a timed call


class Layer(NamedTuple):
    """Row of Table 1.

    Attributes:
      kind: of the mixer.
      title: in the table.
      flops, sequential, path: the paper's formulas.
      exponents: of n in the first two.
      path_of: the exact length of the longest path among n positions, in layers, or for recurrence in steps.
      path_formula: that in words.
    """

    kind: str
    title: str
    flops: str
    sequential: str
    path: str
    exponents: tuple[float, float]
    path_of: Callable[[int], int]
    path_formula: str


LAYERS = (
    Layer("attention", "self-attention", "O(n^2 d)", "O(1)", "O(1)", (2, 0), lambda n: 1, "1"),
    Layer("recurrent", "recurrent", "O(n d^2)", "O(n)", "O(n)", (1, 1), lambda n: n, "n steps"),
    Layer(
        "convolution",
        "convolutional",
        "O(k n d^2)",
        "O(1)",
        "O(n/k)",
        (1, 0),
        lambda n: max(1, -(-(n - 1) // (TAPS - 1))),
        "(n - 1) / (k - 1), rounded up",
    ),
    Layer(
        "dilated",
        "convolutional, dilated",
        "O(k n d^2)",
        "O(1)",
        "O(log_k n)",
        (1, 0),
        lambda n: next(layers for layers in range(1, 64) if TAPS**layers >= n),
        "log_k n, rounded up",
    ),
    Layer(
        "local",
        "self-attention, restricted",
        "O(r n d)",
        "O(1)",
        "O(n/r)",
        (1, 0),
        lambda n: max(1, -(-(n - 1) // NEIGHBOURHOOD)),
        "(n - 1) / r, rounded up",
    ),
)


def measure(lengths: Sequence[int] = LENGTHS, say: Callable[[str], None] = print) -> dict:
    """Returns {"width", "neighbourhood", "taps", "layers": {kind: {"n": [...], "flops", "chain", "path", "seconds"}}}.

    flops: of the matrix products, those of queries, keys, values and output of attention left out (section 4 compares
      without them).
    chain: operations that must be done one after the other.
    path: layers (steps of a recurrence) until every position depends on all that it may.
    seconds: of a call, the median of some; the only figure that depends on the machine.
    """
    found = {}
    for layer in LAYERS:
        rows = []
        for length in lengths:
            rows.append(_measured(layer.kind, length))
            say(f"{layer.title}, n = {length}: {rows[-1]}")
        found[layer.kind] = {"n": list(lengths)} | {key: [row[key] for row in rows] for key in rows[0]}
    return {"width": WIDTH, "neighbourhood": NEIGHBOURHOOD, "taps": TAPS, "layers": found}


def _measured(kind, length):
    import jax
    import jax.numpy as jnp

    from experiments.analysis import complexity
    from tx.model.mixers import mixers
    from tx.model.packed_mask import PackedMask
    from tx.model.position_context import PositionContext
    from tx.model.positions import PositionEncoding, positions

    attention = {"d_model": WIDTH, "num_heads": 1, "kv_heads": 1, "d_k": WIDTH, "d_v": WIDTH, "similarity": "scaled"}
    attention |= {"projection_bias": False, "attention_dropout": 0.0, "kernel": "xla", "dtype": "float32"}
    mixer = mixers[kind](attention=attention, neighbourhood=NEIGHBOURHOOD, kernel_width=TAPS, causal=True)
    model = get_config().model
    fields = {field.name: model[field.name] for field in dataclasses.fields(PositionEncoding) if field.name in model}
    fields |= {"num_layers": 1, "num_heads": 1, "d_model": WIDTH, "d_k": WIDTH, "d_v": WIDTH, "causal": True}
    nowhere, packed = positions["none"](**fields), PackedMask.of(jnp.ones((1, length), jnp.int32), causal=True)
    position = jnp.arange(length)[None]

    def mix(module, x, layer):
        return module.mix(x[None], packed, PositionContext(nowhere, layer, position), train=False)[0]

    x, other = (jax.random.normal(jax.random.key(seed), (length, WIDTH)) for seed in (0, 1))
    params = mixer.init(jax.random.key(2), x, 0, method=mix)

    def function(x, layer=0):
        return mixer.apply(params, x, layer, method=mix)

    projections = 2 * length * 4 * WIDTH * WIDTH if kind in ("attention", "local") else 0
    wanted = np.tri(length, dtype=bool)
    if kind == "dilated":

        def dependencies(layer):
            return complexity.dependency_matrix(functools.partial(function, layer=layer), x, other)

        path = complexity.layers_to_connect(dependencies, wanted, length)
    elif kind == "recurrent":
        path = _steps(mixer, params, x, other, wanted)
    else:
        path = complexity.equal_layers_to_connect(complexity.dependency_matrix(function, x, other), wanted)
    return {
        "flops": complexity.product_flops(function, x) - projections,
        "chain": complexity.critical_path_length(function, x),
        "path": path,
        "seconds": _seconds(jax.jit(function), x),
    }


def _steps(mixer, params, x, other, wanted):
    """Returns the steps of a recurrence until every position depends on all earlier inputs.

    The first brings each input into its own state; each further one takes every state on by one position. (All at once
    they would forget: what the gates let through of a far input is no more than a rounding error.)
    """
    import jax.numpy as jnp

    from experiments.analysis import complexity

    def state(module, inputs, before):
        return module._advance(0, module.inputs[0](inputs), (before, before))[0][0]

    zeros = jnp.zeros_like(x)
    entering = complexity.dependency_matrix(lambda inputs: mixer.apply(params, inputs, zeros, method=state), x, other)

    def advanced(states):
        return mixer.apply(params, x, jnp.pad(states[:-1], ((1, 0), (0, 0))), method=state)

    # A state that was reached stays reached.
    onwards = complexity.dependency_matrix(advanced, x, other) | np.eye(len(x), dtype=bool)
    if (entering != np.eye(len(x), dtype=bool)).any():
        raise AssertionError("a step reads its own input alone")
    return 1 + (complexity.equal_layers_to_connect(onwards, wanted) if len(x) > 1 else 0)


def _seconds(function, x):
    function(x).block_until_ready()
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        function(x).block_until_ready()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def exponent(lengths: Sequence[float], values: Sequence[float]) -> float:
    """Returns the slope of a straight line through the logarithms: b of values = a lengths^b."""
    x, y = np.log(np.asarray(lengths, float)), np.log(np.asarray(values, float))
    return float(np.polyfit(x, y, 1)[0])


def fit(one: dict, key: str) -> float:
    """Returns the exponent of n in what was measured of one layer; of time over the longer half of the lengths."""
    count, start = len(one["n"]), 0
    if key == "seconds":  # short calls measure what every call costs
        start = min(count // 2, count - 2)  # a line needs two points
    return exponent(one["n"][start:], one[key][start:])


def _shown(exponent):
    return f"{round(exponent, 2) + 0.0:.2f}"  # of zero no sign: where nothing grows, a fit gives -1e-17


def build(measured: dict) -> Table:
    """Makes the table: the paper's formulas beside what was measured."""
    rows, records = [], []
    for layer in LAYERS:
        one = measured["layers"][layer.kind]
        lengths = one["n"]
        fitted = {key: fit(one, key) for key in ("flops", "chain", "seconds")}
        exact = all(path == layer.path_of(n) for n, path in zip(lengths, one["path"], strict=True))
        rows.append(
            (
                layer.title,
                layer.flops,
                f"n^{_shown(fitted['flops'])}",
                layer.sequential,
                f"n^{_shown(fitted['chain'])}",
                f"{one['chain'][-1]:,}",
                layer.path,
                layer.path_formula,
                "yes" if exact else "no",
                f"{one['path'][-1]:,}",
                f"n^{_shown(fitted['seconds'])}",
                f"{1000 * one['seconds'][-1]:.2f}",
            )
        )
        records.append({"layer": layer.kind} | {f"{key}_exponent": value for key, value in fitted.items()})
    longest = measured["layers"]["attention"]["n"][-1]
    at = f"at n = {longest:,}"
    return Table(
        title='table1: Table 1 of "Attention Is All You Need", measured.',
        columns=(
            Column("layer", text=True),
            Column("operations", "paper", text=True),
            Column("operations", "measured"),
            Column("sequential", "paper", text=True),
            Column("sequential", "measured"),
            Column("chain", at),
            Column("longest path", "paper", text=True),
            Column("longest path", "exactly", text=True),
            Column("so measured", text=True),
            Column("path", at),
            Column("time", "measured"),
            Column("ms", at),
        ),
        rows=tuple(rows),
        groups=tuple(layer.kind for layer in LAYERS),
        caption=(
            ("n", ", ".join(map(str, measured["layers"]["attention"]["n"]))),
            ("d", str(measured["width"])),
            ("r", str(measured["neighbourhood"])),
            ("k", str(measured["taps"])),
        ),
        notes=(
            "Operations are those of matrix products, loops counted once a pass; attention's projections are left out. "
            "Measured: the exponent of n that fits best, of time over the longer half of the lengths.",
            "Sequential: operations of the program that must be done one after the other.",
            "Longest path: the layers (of a recurrence, the steps) until every position depends on all that it may, by "
            "exchanging inputs one by one and following what changes.",
        ),
        records=tuple(records),
    )


def run(lengths: Sequence[int], out: pathlib.Path, console: rich.console.Console) -> None:
    """Measures, prints the table, and writes table1.json, .md, .csv, .tex, .png and .svg into a folder.

    Raises UserError for lengths that no sentence has, and where the folder cannot be written.
    """
    from tx.runtime import backend, environment

    if wrong := [length for length in lengths if length < 2]:
        raise UserError(f"--lengths: a sentence of {wrong[0]} has no path; give lengths from 2")
    if len(set(lengths)) < 2:
        raise UserError("--lengths: what grows is seen from two lengths on; give two or more")
    environment.refuse_other_numbers()
    backend.start()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    measured = measure(sorted(set(lengths)), lambda line: console.print(rich.text.Text(line)))
    table = build(measured)
    tables.print_table(table, console)
    with writing(out):
        write_atomically(out / f"{NAME}.json", to_json(measured))
        for form, render in (("md", tables.to_markdown), ("csv", tables.to_csv), ("tex", tables.to_latex)):
            write_atomically(out / f"{NAME}.{form}", render(table))
        for form in ("png", "svg"):
            plot(measured).savefig(out / f"{NAME}.{form}", dpi=120, metadata={"Date": None} if form == "svg" else None)


def plot(measured: dict):
    """Draws operations, chain, path and time over n on logarithmic axes, each line with the exponent that fits it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    titles = {"flops": "operations", "chain": "sequential operations", "path": "longest path", "seconds": "seconds"}
    for axes, (key, title) in zip(figure.subplots(1, 4), titles.items(), strict=True):
        lines = []
        for layer, style in zip(LAYERS, STYLES, strict=True):
            one = measured["layers"][layer.kind]
            lines += axes.plot(one["n"], one[key], style, label=layer.title)
        exponents = [f"$n^{{{_shown(fit(measured['layers'][layer.kind], key))}}}$" for layer in LAYERS]
        axes.legend(lines, exponents, fontsize=7, frameon=False)
        axes.set(xscale="log", yscale="log", xlabel="n", title=title)
        axes.set_xticks(measured["layers"]["attention"]["n"][::2], minor=False)
        axes.get_xaxis().set_major_formatter("{x:.0f}")
        axes.minorticks_off()
    figure.legend(
        lines, [layer.title for layer in LAYERS], loc="outside lower center", ncols=5, fontsize=8, frameon=False
    )
    return figure
