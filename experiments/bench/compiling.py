"""`python -m experiments.bench compile`: what a compiler makes of our step for an accelerator that is not there."""

import collections
import pathlib
import re
import sys
from collections.abc import Sequence

from ml_collections import ConfigDict

from experiments.bench import table
from experiments.bench.harness import compilers, targets
from experiments.bench.harness.contestant import Contestant
from experiments.bench.harness.hlo import parse
from experiments.bench.harness.kernel_costs import Kernel, kernels
from experiments.bench.harness.targets import Target
from experiments.report.tables import Column, Table
from tx.errors import UserError
from tx.model.flops import parameter_count, training_flops

KIND, FORMAT = "compile", 1  # of the JSON
SHOWN = 20  # groups of kernels that a result keeps, those that take longest first


def measure_compiled(
    config: ConfigDict, *, target: str, members: int = 1, length: int | None = None, threads: int
) -> tuple[dict, str]:
    """Returns (the result of `compile`, the compiled program's text); UserError where no compiler is installed.

    Args:
      config: whose training step it is; with a `length`, whose beam search.
      target: of `targets.TARGETS`.
      members: runs that train side by side.
      length: tokens of each source that is translated, as many as decode.batch_tokens holds; None for a training step.
      threads: of the compiler.
    """
    targets.refuse_missing(target)
    goal = targets.TARGETS[target]
    arguments = {"target": target, "config": config.to_dict()}
    rows = None if length is None else max(1, config.decode.batch_tokens // length)
    with Contestant(f"the compiler for {target}", "contestants.tx_compiled:Compiled", arguments, threads) as one:
        found = one("train_step", members=members) if rows is None else one("search", rows=rows, length=length)
    text = found.pop("text")
    step_flops = None
    if rows is None:
        updates = members * config.train.steps_per_dispatch
        step_flops = training_flops(config) / config.train.steps * updates
    return {
        "kind": KIND,
        "what": config.name,
        "config": config.to_dict(),
        "parameters": parameter_count(config.model),
        "target": target,
        "stack": members,
        "decode": None if rows is None else {"rows": rows, "length": length},
        "compilers": compilers.versions(sys.executable),
        **found,
        **summarise(kernels(parse(text), scalars=goal.platform == "gpu"), goal, step_flops),
    }, text


def roofline(kernel: Kernel, target: Target) -> float:
    """Returns the least seconds that a kernel's launches take: memory or products, whichever is longer, and starts."""
    return max(kernel.bytes / target.bandwidth, kernel.flops / target.peak) + kernel.launches * target.launch


def summarise(found: Sequence[Kernel], target: Target, step_flops: float | None = None) -> dict:
    """Returns the figures of a program's kernels.

    Those of `_sums` over all; "mfu", the share of the target's peak that `step_flops`, where given, would reach;
    "by_kind" and "costliest", the same of groups of kernels; "per_token", of a search, those of a turn of its loop with
    one turn of each loop within, and "conditions", how many times the host is waited for in it.
    """
    result = _sums(found, target)
    result["mfu"] = step_flops / target.peak / (result["roofline_ms"] / 1e3) if step_flops else None
    result["by_kind"] = _grouped(found, target, lambda kernel: {"kernel": kernel.kind})
    result["costliest"] = _grouped(
        found, target, lambda kernel: {"kernel": kernel.kind, "source": re.sub(r"\d+", "N", kernel.source)}
    )[:SHOWN]
    repeated = [kernel for kernel in found if kernel.loops]
    result["per_token"] = None
    if repeated:
        conditions = len({loop for kernel in repeated for loop in kernel.loops})
        result["per_token"] = _sums(repeated, target) | {"conditions": conditions}
    return result


def _sums(found, target):
    """Returns "kernels", launches; "gb", memory touched; "tflop", operations of products; "roofline_ms"."""
    return {
        "kernels": sum(kernel.launches for kernel in found),
        "gb": sum(kernel.bytes for kernel in found) / 1e9,
        "tflop": sum(kernel.flops for kernel in found) / 1e12,
        "roofline_ms": 1e3 * sum(roofline(kernel, target) for kernel in found),
    }


def _grouped(found, target, key):
    groups = collections.defaultdict(list)
    for kernel in found:
        groups[tuple(key(kernel).items())].append(kernel)
    sums = [dict(names) | _sums(members, target) for names, members in groups.items()]
    return sorted(sums, key=lambda group: -group["roofline_ms"])


def read(path: pathlib.Path) -> dict:
    """Returns the result in a JSON file; UserError where it is none of `compile`."""
    result = table.read_json(path)
    if not isinstance(result, dict) or result.get("kind") != KIND or result.get("format") != FORMAT:
        raise UserError(f"{path} is no result of python -m experiments.bench compile (format {FORMAT})")
    try:
        to_table(result)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path} is damaged; compile again") from None
    return result


_FIGURES = (  # key, title, form
    ("kernels", "kernels", "{:,.0f}"),
    ("gb", "memory touched, GB", "{:,.2f}"),
    ("tflop", "products, TFLOP", "{:,.3f}"),
    ("roofline_ms", "roofline, ms", "{:,.3f}"),
    ("mfu", "MFU at the roofline, %", "{:.1%}"),
    ("arguments_mib", "arguments, MiB", "{:,.0f}"),
    ("temporaries_mib", "temporaries, MiB", "{:,.0f}"),
    ("compile_s", "compiled in, s", "{:,.0f}"),
)


def to_table(*results: dict) -> Table:
    """Returns the figures of one result, or of some side by side: a column for each."""
    rows = []
    for key, title, form in _FIGURES:
        values = [one[key] for one in results]
        if any(value is not None for value in values):
            rows.append((title, *("" if value is None else form.format(value) for value in values)))
    if any(one["per_token"] for one in results):
        for key, form in (
            ("kernels", "{:,.0f}"),
            ("conditions", "{:,.0f}"),
            ("gb", "{:,.3f}"),
            ("roofline_ms", "{:.3f}"),
        ):
            rows.append(
                (
                    f"a token: {key}",
                    *(form.format(one["per_token"][key]) if one["per_token"] else "" for one in results),
                )
            )
    kinds = dict.fromkeys(group["kernel"] for one in results for group in one["by_kind"])
    for kind in kinds:
        rows.append((kind, *(_kind_cell(one, kind) for one in results)))
    columns = (Column("figure", text=True), *(Column(_label(one)) for one in results))
    records = tuple({"figure": row[0]} | dict(enumerate(row[1:])) for row in rows)
    title = "A program compiled for an accelerator that is not there: no kernel was tried out or run."
    compilers = [" ".join(f"{name} {version}" for name, version in one["compilers"].items()) for one in results]
    caption = (("compilers", ", ".join(dict.fromkeys(compilers))),)
    return Table(title, columns, tuple(rows), ("",) * len(rows), caption, (), records)


def _kind_cell(one, kind):
    for group in one["by_kind"]:
        if group["kernel"] == kind:
            return f"{group['kernels']:,} · {group['gb']:,.2f} GB · {group['roofline_ms']:,.2f} ms"
    return ""


def _label(one):
    """Returns what a result is of, in words."""
    batch, decode = one["config"]["data"], one["decode"]
    shape = (
        f"{decode['rows']} x {decode['length']} decoded"
        if decode
        else (
            f"{batch['batch_rows']} x {batch['row_length']}"
            + (f" x {one['stack']} stacked" if one["stack"] > 1 else "")
        )
    )
    return f"{one['what']} for {one['target']}, {one['config']['model']['dtype']}, {shape}"


def costliest_table(result: dict) -> Table:
    """Returns the groups of kernels that take longest; a group has one kind and, but for the layer, one source."""
    rows = tuple(
        (
            f"{group['roofline_ms']:,.3f}",
            f"{group['gb']:,.3f}",
            f"{group['kernels']:,}",
            group["kernel"],
            group["source"][-100:],
        )
        for group in result["costliest"]
    )
    heads = ("roofline, ms", "GB", "kernels")
    columns = (*(Column(head) for head in heads), Column("kernel", text=True), Column("source", text=True))
    records = tuple(result["costliest"])
    return Table("What takes longest.", columns, rows, ("",) * len(rows), (("in", _label(result)),), (), records)
