"""`python -m experiments.bench table`: one table of ratios, from the JSON files that the other commands wrote."""

import dataclasses
import pathlib
from collections.abc import Sequence

from experiments.report import markers, symbols
from experiments.report.tables import Column, Table, to_markdown
from tx.errors import UserError
from tx.files import from_json, read_text

NAME = "bench"  # between the markers of a README
FORMAT = 1  # of the JSON files
SIZE = ("num_layers", "d_model", "d_ff", "num_heads", "d_k", "d_v", "norm")  # what of a model the notes give
_RATIO = "tx / peer: the median of the ratios of each round, which need not be the ratio of the medians beside it."
BESIDE_PEERS = ("train", "decode", "memory")  # kinds of result that compare with other programs


@dataclasses.dataclass(frozen=True)
class Figure:
    """Figure that contestants are compared by.

    Attributes:
      key: in the JSON files.
      title: in the table, with its unit.
      more_is_better: whether the greater one wins.
      text: its form.
    """

    key: str
    title: str
    more_is_better: bool
    text: str


FIGURES = {
    "train": (Figure("target_tokens_per_s", "training, target tokens/s", True, "{:,.0f}"),),
    "decode": (Figure("sentences_per_s", "translating, sentences/s", True, "{:,.1f}"),),
    "seeds": (Figure("runs_per_hour", "whole runs an hour, tx stacked", True, "{:,.1f}"),),
    "guards": (Figure("target_tokens_per_s", "training with all guards, target tokens/s", True, "{:,.0f}"),),
    "packing": (Figure("target_tokens_per_s", "packing ahead of a device, target tokens/s", True, "{:,.0f}"),),
    "memory": (Figure("peak_mib", "training, peak memory in MiB", False, "{:,.0f}"),),
}
_COLUMNS = (
    Column("figure", text=True),
    Column("what", text=True),
    Column("machine", text=True),
    Column("threads"),
    Column("peer", text=True),
    Column("tx"),
    Column("peer's"),
    Column("tx / peer"),
    Column("least to greatest"),
    Column("better", text=True),
)


def read(paths: Sequence[pathlib.Path]) -> list[dict]:
    """Returns the results in JSON files, or in all *.json of a folder; UserError for what is no result."""
    files = []
    for path in paths:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"no results in {', '.join(map(str, paths))}; measure some with --out=FILE.json")
    return [_read(file) for file in files]


def read_json(file: pathlib.Path) -> object:
    """Returns what a JSON file holds; UserError where it cannot be read or is none."""
    try:
        return from_json(read_text(file))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}") from None


def _read(file):
    result = read_json(file)
    if not isinstance(result, dict) or result.get("format") != FORMAT or result.get("kind") not in list(FIGURES):
        raise UserError(f"{file} is no result of python -m experiments.bench (format {FORMAT})")
    try:
        if not isinstance(result["what"], str) or type(result["machine"]["threads"]) is not int:
            raise TypeError
        build([result])
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError):
        raise UserError(f"{file} is damaged; measure again") from None
    return result


def build(results: Sequence[dict]) -> Table:
    """Returns the table: a row for each figure and peer, in the order of FIGURES and then of the names."""
    order = list(FIGURES)
    results = sorted(results, key=lambda one: (order.index(one["kind"]), one["what"], _machine(one), _threads(one)))
    rows, groups, records, notes = [], [], [], []
    for result in results:
        name = f"{result['what']} ({result['parameters'] / 1e6:.1f}M parameters)"
        ours = result["contestants"]["tx"]["median"]
        for figure in FIGURES[result["kind"]]:
            for peer, ratios in result["ratios"].items() or [(None, {})]:
                one = ratios.get(figure.key, {})
                theirs = result["contestants"][peer]["median"][figure.key] if peer else None
                rows.append(_beside(result, name, figure, peer, one) if peer else _alone(result, name, figure))
                groups.append(result["kind"])
                records.append(
                    {"figure": figure.key, "what": result["what"]}
                    | {"machine": _machine(result), "threads": _threads(result)}
                    | {"peer": peer, "tx": ours[figure.key], "peer_s": theirs, "ratio": one["median"] if peer else None}
                )
        notes += _notes(result, name)
    notes += [_RATIO] if any(record["ratio"] is not None for record in records) else []
    return Table(
        title=f"{NAME}: tx beside other programs, in turns on one machine.",
        columns=_COLUMNS,
        rows=tuple(rows),
        groups=tuple(groups),
        caption=_caption(results),
        notes=tuple(dict.fromkeys(notes)),
        records=tuple(records),
    )


def _beside(result, name, figure, peer, ratio):
    """A row of what was measured in turns with a peer."""
    ours, theirs = (result["contestants"][label]["median"][figure.key] for label in ("tx", peer))
    several = ratio["min"] != ratio["max"]
    return (
        figure.title,
        name,
        _machine(result),
        str(_threads(result)),
        peer,
        figure.text.format(ours),
        figure.text.format(theirs),
        f"{ratio['median']:.2f}",
        f"{ratio['min']:.2f} to {ratio['max']:.2f}" if several else "",
        verdict(ratio["median"], figure.more_is_better, peer),
    )


def _machine(result):
    """The processor that computed, as its maker calls it, without the marks of a trademark."""
    return " ".join(result["machine"]["processor"].replace("(R)", "").replace(" Processor", "").split())


def _threads(result):
    return result["machine"]["threads"]


def _alone(result, name, figure):
    """A row of what was measured without a peer: its last cell says what share it is of what the device can do."""
    ours = result["contestants"]["tx"]["median"]
    share = f"{ours['mfu']:.1%} of the maker's peak (MFU)" if "mfu" in ours else ""
    dtype = f", {result['config']['model']['dtype']}" if "config" in result else ""
    return (
        figure.title,
        name + dtype,
        _machine(result),
        str(_threads(result)),
        "none",
        figure.text.format(ours[figure.key]),
        "",
        "",
        "",
        share,
    )


def verdict(ratio: float, more_is_better: bool, peer: str) -> str:
    """Says who is better and by what factor; "even" within one part in a hundred."""
    if 0.99 <= ratio <= 1.01:
        return "even"
    factor, ours_is_better = max(ratio, 1 / ratio), (ratio > 1) == more_is_better
    if more_is_better:
        return f"{'tx' if ours_is_better else peer} is {factor:.2f} times as fast"
    return f"{peer if ours_is_better else 'tx'} takes {factor:.2f} times as much"


def _caption(results):
    def all_of(values):
        return ", ".join(dict.fromkeys(values))

    versions = {}
    for result in results:
        for library in ("jax", "torch", "ctranslate2", "transformers"):
            if library in result["versions"]:
                versions.setdefault(library, []).append(result["versions"][library])
    return (
        ("machine", all_of(f"{r['machine']['processor']}, {r['machine']['cores']} cores" for r in results)),
        ("versions", "; ".join(f"{library} {all_of(found)}" for library, found in versions.items())),
        ("code", all_of(r["revision"] or "unknown" for r in results)),
    )


def _notes(result, name):
    yield from _size(result)
    there = f"{name}, {_machine(result)}"
    if result["kind"] == "train":
        peak = result["matmul_peak"]
        shares = ", ".join(
            f"{label} {one['median']['share_of_peak']:.0%}" for label, one in result["contestants"].items()
        )
        best = f"a matrix product's {peak['flops'] / 1e9:.0f} GFLOP/s"
        yield f"{there}, {_threads(result)} threads: share of {best}: {shares}."
        yield f"{name}: {result['sentences']}."
        if peak.get("dense"):
            shares = ", ".join(f"{label} {one['median']['mfu']:.1%}" for label, one in result["contestants"].items())
            best = f"the {peak['dense'] / 1e12:.0f} TFLOP/s that the maker prints (MFU)"
            yield f"{there}: share of {best}: {shares}."
    if result["kind"] == "memory" and (parts := _micro_batches(result)) > 1:
        yield f"{name}: tx computes an update in {parts} micro-batches, PyTorch in one unless its label says otherwise."
    if result["kind"] == "guards":
        yield f"{name}: a checkpoint every {result['config']['train']['checkpoint_every']} steps."
        medians = [one["median"] for one in result["contestants"].values()]
        if starts := [figures["start_s"] for figures in medians if "start_s" in figures]:
            seconds = "{:.2f} s with all checks, {:.2f} s without".format(*starts)
            yield f"{there}: a start from its checkpoints takes {seconds}."
    if result["kind"] == "packing":
        yield f"{name}: {result['sentences']}."
        rates = ((label, one["median"]["target_tokens_per_cpu_s"]) for label, one in result["contestants"].items())
        each = ", ".join(f"{label} {rate:,.0f}" for label, rate in rates)
        yield f"{there}: target tokens a second of the packing process's own processor time: {each}."
    if result["kind"] == "seeds":
        yield f"{name}: {result['seeds']} seeds, evaluation and translation included, compiled before."
    if result["kind"] == "decode":
        for label, one in result["contestants"].items():
            alike = f", {one['identical']:.1%} of the translations identical to ours" if "identical" in one else ""
            yield f"{there}, beam {result['beam']}, no length penalty, {label}: BLEU {one['bleu']:.1f}{alike}."


def _size(result):
    """Says what model was measured, which beside peers is not always its scale's own."""
    if "config" not in result:
        return
    model = result["config"]["model"]
    size = symbols.changes({f"model.{name}": model[name] for name in SIZE})
    yield f"{result['config']['name']} ({result['parameters'] / 1e6:.1f}M parameters): {size}."
    split = model["num_heads"] * model["d_k"] == model["num_heads"] * model["d_v"] == model["d_model"]
    if result["kind"] in BESIDE_PEERS and split and model["norm"] == "post":
        yield (
            "Beside other programs models have h x d_k = h x d_v = d_model and the norm after the sub-layer, whatever "
            "heads and norm their scale has: not all of the others can hold another."
        )


def _micro_batches(result):
    return result.get("config", {}).get("train", {}).get("micro_batches", 1)


def renew_readme(readme: pathlib.Path, paths: Sequence[pathlib.Path], check: bool) -> int:
    """Puts the table between the lines <!-- table: bench --> and <!-- end table -->; see `markers.renew`."""

    def render(names):
        for name in names:
            if name != NAME:
                raise UserError(f"{readme}: no table is called {name!r}; a table is SWEEP@SCALE or {NAME}")
        return {NAME: to_markdown(build(read(paths)))}

    return markers.renew(readme, lambda name: "@" not in name, render, check)
