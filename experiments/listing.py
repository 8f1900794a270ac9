"""`python -m experiments list`: sweeps and variants, their size and the paper's numbers; no model is built."""

import rich.box
import rich.console
import rich.table
import rich.text

import tx.model.flops
from experiments import registry
from experiments.registry import Run, Scale, Sweep
from experiments.report.symbols import changes, show
from experiments.report.tables import Column, fitting
from experiments.scales import SCALES
from tx import components
from tx.fields import FIELDS

_COLUMNS = (
    Column("variant", text=True),
    Column("changes", text=True),
    Column("parameters", drop=2),
    Column("paper, M", drop=4),
    Column("FLOPs", drop=3),
    Column("PPL", drop=1),
    Column("BLEU", drop=1),
)
_DROPS = {"width": 2, "heads": 2, "depth": 2, "variants": 1, "corpus": 1}  # of the overview
_DROPS |= {"of": 1, "symbol": 2, "takes": 3}  # of the fields
_HEADS = {"of": "only with"}


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
    rows, notes = [], []
    for variant, e in zip(sweep.variants, entries(sweep, scale), strict=True):
        if variant.note:
            notes.append(variant.note)
        mark = f" [{len(notes)}]" if variant.note else ""
        numbers = (f"{e['params']:,}", _or_blank(e["params_paper"], "g") + mark, f"{e['flops']:.2g}")
        numbers += (_or_blank(e["ppl_paper"], ".2f"), _or_blank(e["bleu_paper"], ".1f"))
        rows.append((variant.name, changes(e["diff"]), *numbers))
    console.print(rich.text.Text(f"{sweep.name}@{scale.label}: {sweep.doc}"))
    console.print(rich.text.Text(f"Scale {scale.label}: {scale.doc}. PPL, BLEU and M are the paper's."))
    if sweep.base:
        console.print(rich.text.Text(f"Its base differs from the paper's by {changes(sweep.base)}."))
    _print(_COLUMNS, rows, console)
    for number, note in enumerate(notes, 1):
        console.print(rich.text.Text(f"[{number}] {note}"))


def overview() -> dict[str, list[dict]]:
    """Returns {"sweeps": [{name, variants, doc}], "scales": [{name, corpus, width, heads, depth, doc}]}."""
    return {
        "sweeps": [{"name": s.name, "variants": len(s.variants), "doc": s.doc} for s in registry.sweeps()],
        "scales": [
            {
                "name": s.name,
                "corpus": s.settings()["data.corpus"],
                "width": str(s.width),
                "heads": str(s.heads),
                "depth": str(s.depth),
                "doc": s.doc,
            }
            for s in SCALES.values()
        ],
    }


def print_overview(console: rich.console.Console) -> None:
    """Prints the sweeps and the scales."""
    for kind, rows in overview().items():
        columns = [Column(key, text=key != "variants", drop=_DROPS.get(key, 0)) for key in rows[0]]
        console.print(f"{kind.capitalize()}:")
        _print(columns, [tuple(map(str, row.values())) for row in rows], console)
    console.print(rich.text.Text("One sweep: python -m experiments list SWEEP[@SCALE], e.g. table3@paper"))


def fields() -> list[dict]:
    """Returns one dict a field that any run can have, those of a component behind those of its group.

    Keys: field (its dotted name), default, symbol (the paper's or the literature's, "" for none), meaning, of (what
    has to be chosen for it, e.g. "optim.optimizer=lion"; "" where every run has it), takes (which numbers, or texts).
    """
    groups = list(dict.fromkeys(name.partition(".")[0] for name in FIELDS))
    known = sorted(components.known_fields().items(), key=lambda one: groups.index(one[0].partition(".")[0]))
    return [_field(name, field) for name, field in known if name not in ("version", "name")]


def _field(name, field):
    choosing, owners = components.readers(name) or ("", ())
    return {
        "field": name,
        "default": field.default,
        "symbol": field.symbol,
        "meaning": field.meaning,
        "of": f"{choosing}={','.join(owners)}" if owners else "",
        "takes": ", ".join(components.names(name)) or field.described,
    }


def print_fields(console: rich.console.Console) -> None:
    """Prints `fields` as a table."""
    keys = ("field", "default", "symbol", "meaning", "takes", "of")
    rows = [(one["field"], show(one["default"]), *(one[key] for key in keys[2:])) for one in fields()]
    _print(tuple(Column(_HEADS.get(key, key), text=True, drop=_DROPS.get(key, 0)) for key in keys), rows, console)
    console.print(rich.text.Text("Set one: --set FIELD=VALUE, or --grid FIELD=V1,V2, of python -m launch.local"))


def _print(columns, rows, console):
    """Prints rows, on a narrow terminal without the columns that are needed least."""
    kept = fitting(columns, rows, console.width)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i in kept:
        if columns[i].text:
            table.add_column(columns[i].head, overflow="fold", min_width=0 if i else max(len(row[0]) for row in rows))
        else:  # to the right, never folded
            table.add_column(columns[i].head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(rich.text.Text(row[i]) for i in kept))
    console.print(table)


def _or_blank(value, form):
    return "" if value is None else format(value, form)
