"""`python -m experiments list`: sweeps and variants, their size and the paper's numbers; no model is built."""

import rich.box
import rich.console
import rich.table
import rich.text

import tx.model.flops
from experiments import registry
from experiments.registry import Run, Scale, Sweep
from experiments.report.symbols import changes
from experiments.scales import SCALES


def entries(sweep: Sweep, scale: Scale) -> list[dict]:
    """Returns one dict a variant, in the table's order.

    Keys: name, sweep, variant, scale, diff ({dotted field: value} against the base at this scale), params
    (exact), params_paper (millions), flops (of the whole training, `tx.model.flops.training_flops`), ppl_paper,
    bleu_paper; None where the paper prints nothing.
    """
    base = registry.base_config(sweep, scale)
    return [_entry(Run(sweep, variant, scale), base) for variant in sweep.variants]


def _entry(run, base):
    config = registry.resolve(*run)
    paper = run.variant.paper or registry.PaperRow()
    return {
        "name": run.name,
        "sweep": run.sweep.name,
        "variant": run.variant.name,
        "scale": run.scale.label,
        "diff": registry.diff(config, base),
        "params": tx.model.flops.parameter_count(config.model),
        "params_paper": paper.params,
        "flops": tx.model.flops.training_flops(config),
        "ppl_paper": paper.ppl,
        "bleu_paper": paper.bleu,
    }


def print_entries(sweep: Sweep, scale: Scale, console: rich.console.Console) -> None:
    """Prints `entries` as a table, with the variants' notes under it."""
    table = _table("variant", "changes", ">parameters", ">paper, M", ">FLOPs", ">PPL", ">BLEU")
    notes = []
    for variant, e in zip(sweep.variants, entries(sweep, scale), strict=True):
        if variant.note:
            notes.append(variant.note)
        mark = f" [{len(notes)}]" if variant.note else ""
        numbers = (f"{e['params']:,}", _or_blank(e["params_paper"], "g") + mark, f"{e['flops']:.2g}")
        numbers += (_or_blank(e["ppl_paper"], ".2f"), _or_blank(e["bleu_paper"], ".1f"))
        table.add_row(*map(rich.text.Text, (variant.name, changes(e["diff"]), *numbers)))
    console.print(rich.text.Text(f"{sweep.name}@{scale.label}: {sweep.doc}"))
    console.print(rich.text.Text(f"Scale {scale.label}: {scale.doc}. PPL, BLEU and M are the paper's."))
    if sweep.base:
        console.print(rich.text.Text(f"Its base differs from the paper's by {changes(sweep.base)}."))
    console.print(table)
    for number, note in enumerate(notes, 1):
        console.print(rich.text.Text(f"[{number}] {note}"))


def overview() -> dict[str, list[dict]]:
    """Returns {"sweeps": [{name, variants, doc}], "scales": [{name, corpus, width, depth, doc}]}."""
    return {
        "sweeps": [{"name": s.name, "variants": len(s.variants), "doc": s.doc} for s in registry.sweeps()],
        "scales": [
            {
                "name": s.name,
                "corpus": s.settings()["data.corpus"],
                "width": str(s.width),
                "depth": str(s.depth),
                "doc": s.doc,
            }
            for s in SCALES.values()
        ],
    }


def print_overview(console: rich.console.Console) -> None:
    """Prints the sweeps and the scales."""
    for kind, rows in overview().items():
        table = _table(*(">variants" if key == "variants" else key for key in rows[0]))
        for row in rows:
            table.add_row(*(rich.text.Text(str(value)) for value in row.values()))
        console.print(f"{kind.capitalize()}:")
        console.print(table)
    console.print(rich.text.Text("One sweep: python -m experiments list SWEEP[@SCALE], e.g. table3@paper"))


def _table(*headers):
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for header in headers:
        if header.startswith(">"):  # numbers: to the right, never folded
            table.add_column(header[1:], justify="right", no_wrap=True)
        else:
            table.add_column(header, overflow="fold")
    return table


def _or_blank(value, form):
    return "" if value is None else format(value, form)
