"""`python -m experiments transfer`: do effects carry over? Each row's difference from base at every scale.

Scales differ in corpus, sizes and lengths of text. Perplexities are per subword of each scale's own vocabulary, so that
it is the sign and the order of effects that can carry over; their size needs a grain of salt.
"""

import itertools
import pathlib
from collections.abc import Iterable, Sequence

import rich.console
import rich.text

from experiments import registry
from experiments.report import agreement, differences_table, flags, noise, pictures, reading, tables
from experiments.report.captions import texts_notes
from experiments.report.metrics import NLL, number
from experiments.report.noise import LEVEL, Interval
from experiments.report.results import Results
from experiments.report.tables import Column, Table
from experiments.report.write import FORMS
from tx.errors import UserError, printable
from tx.files import write_atomically

_PAPER = "paper"


def transfer(
    sweep: str, dirs: Iterable[pathlib.Path], out: pathlib.Path | None, console: rich.console.Console
) -> list[pathlib.Path]:
    """Prints the table of a sweep's effects over scales, and writes it and its figure; returns the files.

    Args:
      sweep: its name.
      dirs: workdirs or SWEEP@SCALE folders.
      out: the folder for SWEEP.transfer.md, .csv, .svg and the like; by default the first of `dirs`.
      console: where to print.

    Raises UserError for an unknown sweep, and where no scale of it has a row that can be compared with base.
    """
    registry.sweep(sweep)
    dirs = list(dirs)
    found = [one for one in reading.read(dirs) if one.sweep.name == sweep]
    table = build(found) if found else None
    if not (table and table.rows):
        raise UserError(f"no results of {sweep} beside its base in {', '.join(map(str, dirs))}")
    tables.print_table(table, console)
    folder, written = out or dirs[0], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        texts = {form: render(table) for form, render in FORMS.items()}
        for form, contents in (texts | pictures.rendered(figure(found))).items():
            written.append(folder / f"{sweep}.transfer.{form}")
            write_atomically(written[-1], contents)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    console.print(
        rich.text.Text(f"Written: {printable(str(folder / sweep))}.transfer.{{{','.join((*FORMS, *pictures.FORMS))}}}")
    )
    return written


def build(found: Sequence[Results]) -> Table:
    """Makes the table of log-perplexities: a line for each row that any scale has, a column for each scale."""
    effects = {one.scale.label: _effects(one) for one in found}
    rows = [row for row in _rows(found) if any(row in of_rows for of_rows in effects.values())]
    printed = _printed(found[0])
    records = [
        {
            "row": row,
            **({"paper": printed.get(row)} if printed else {}),
            **{key: value for scale, of in effects.items() for key, value in _columns(scale, of.get(row)).items()},
        }
        for row in rows
    ]
    return Table(
        title=f"{found[0].sweep.name}: log-perplexity less that of {found[0].rows[0].variant.name}, at each scale.",
        columns=(
            Column("row", text=True),
            *((Column(_PAPER),) if printed else ()),
            *(column for scale in effects for column in (Column(scale), Column(scale, f"{LEVEL:.0%}", drop=1))),
        ),
        rows=tuple(_cells(row, printed, effects) for row in rows),
        groups=tuple(row.partition("/")[0] for row in rows),
        caption=tuple((one.scale.label, f"seeds {_seeds(one)}") for one in found),
        notes=(
            "In nats a subword of each scale's own vocabulary: positive is worse than base. Intervals hold for all "
            "rows of a scale together, over the seeds (Dunnett's test); in parentheses what is inside the noise.",
            *filter(None, map(_unfinished, found)),
            *filter(None, (_untested(one, effects[one.scale.label]) for one in found)),
            *(f"{one.scale.label}: {note}" for one in found for note in _warnings(one)),
            *_orders(effects, printed),
        ),
        records=tuple(records),
    )


def _warnings(found):
    return *texts_notes(found.done), *filter(None, [differences_table.uneven(found, ["PPL"])])


def _unfinished(found):
    done = [row for row in found.rows if row.results]
    late = [row.variant.name for row in done if flags.unfinished(row, found)]
    which = "every row" if len(late) == len(done) else ", ".join(late)
    return f"Unfinished at {found.scale.label}, so that longer training would change it: {which}." if late else ""


def _untested(found, effects):
    """Returns which differences of a scale have no interval; "" where all have one."""
    rows = [row for row, (_, interval) in effects.items() if not interval]
    which = "every row" if len(rows) == len(effects) else ", ".join(rows)
    return f"At {found.scale.label} nothing tells the noise of {which}: the difference is shown as it is." * bool(rows)


def _rows(found):
    return dict.fromkeys(row.variant.name for one in found for row in one.rows[1:])


def _seeds(found):
    return ", ".join(map(str, sorted({run.seed for row in found.rows for run in row.runs if run.result}))) or "none"


def _effects(found: Results) -> dict[str, tuple[float, Interval | None]]:
    """Returns {row of base's text: (its difference from base, the interval where seeds give one)}."""
    base, *others = found.rows
    of_base, known = noise.finite(base, NLL), noise.intervals(found, NLL)
    values = {row.variant.name: noise.finite(row, NLL) for row in others if noise.of_one_text(NLL, base, row)}
    if not of_base:
        return {}
    middle = sum(of_base) / len(of_base)
    return {name: (sum(own) / len(own) - middle, known.get(name)) for name, own in values.items() if own}


def _printed(found):
    """Returns {row: the paper's difference}; empty where it has no numbers of base."""
    of_base = agreement.papers(found.rows[0], "ppl")
    if of_base is None:
        return {}
    values = {row.variant.name: agreement.papers(row, "ppl") for row in found.rows[1:]}
    return {name: value - of_base for name, value in values.items() if value is not None}


def _columns(scale, effect):
    difference, interval = effect or (None, None)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {f"{scale}_difference": difference, f"{scale}_low": low, f"{scale}_high": high}


def _cells(row, printed, effects):
    cells = [row, *([number(printed.get(row), f"+z{NLL.form}")] if printed else [])]
    for of_rows in effects.values():
        difference, interval = of_rows.get(row, (None, None))
        cells.append(noise.mark(number(difference, f"+z{NLL.form}"), interval))
        cells.append(interval.text(NLL.form) if interval else "")
    return tuple(cells)


def _orders(effects, printed):
    """Yields how far two scales agree, and each with the paper: the order of rows that both have, and signs."""
    sides = {scale: of_rows for scale, of_rows in effects.items() if of_rows}
    values = {scale: {row: one for row, (one, _) in of_rows.items()} for scale, of_rows in sides.items()}
    values |= {_PAPER: printed} if printed else {}
    for one, other in itertools.combinations(values, 2):
        shared = [row for row in values[one] if row in values[other]]
        tau = agreement.kendall(
            [0.0, *(values[one][row] for row in shared)], [0.0, *(values[other][row] for row in shared)]
        )
        told = [row for row in shared if all(_told(side, row, sides) for side in (one, other))]
        same = sum(values[one][row] * values[other][row] > 0 for row in told)
        if tau is not None:
            signs = (
                f"; of {len(told)} told from base at both {same} on the same side" if _PAPER not in (one, other) else ""
            )
            yield f"{one} and {other}: tau-b {tau:+.2f} over {len(shared) + 1} rows, base one of them{signs}."


def _told(side, row, sides):
    return side == _PAPER or bool((interval := sides[side][row][1]) and interval.sign)


def figure(found: Sequence[Results]):
    """Returns a matplotlib figure of each row's effect at each scale, with its interval, beside the paper's."""
    import matplotlib
    from matplotlib.figure import Figure

    effects = {one.scale.label: _effects(one) for one in found}
    printed, rows = _printed(found[0]), list(_rows(found))
    heights = {row: len(rows) - i for i, row in enumerate(rows)}
    with matplotlib.rc_context(pictures.STYLE):
        drawing = Figure(figsize=(8, 1 + 0.3 * len(rows)), layout="constrained")
        axes = drawing.subplots()
        axes.axvline(0, color="0.7", linewidth=0.8)
        if shown := {row: value for row, value in printed.items() if row in heights}:
            places = [heights[row] for row in shown]
            axes.scatter(list(shown.values()), places, s=42, facecolors="none", edgecolors="0.4", label=_PAPER)
        for i, (scale, of_rows) in enumerate(effects.items()):
            shift = 0.25 * (i - (len(effects) - 1) / 2) / max(1, len(effects) - 1)
            for row, (difference, interval) in of_rows.items():
                height = heights[row] - shift
                if interval:
                    axes.hlines(height, interval.low, interval.high, color=f"C{i}", linewidth=1.2)
                face = "white" if interval and not interval.sign else f"C{i}"
                shape = "os^Dv"[i % 5] if interval else "x"
                axes.plot(difference, height, marker=shape, markersize=4, color=f"C{i}", mfc=face)
            axes.plot([], [], marker="os^Dv"[i % 5], color=f"C{i}", linestyle="", label=scale)
        axes.set_yticks(list(heights.values()), list(heights))
        unknown = any(not interval for of_rows in effects.values() for _, interval in of_rows.values())
        axes.set_xlabel(
            f"difference from base in log-perplexity; hollow: inside the noise{'; x: noise unknown' if unknown else ''}"
        )
        axes.legend()
    return drawing
