"""Table of what runs cost: epochs, tokens, speed and device hours of each row of a sweep, and of all."""

from collections.abc import Mapping, Sequence

from experiments.report.captions import caption, seeds_note
from experiments.report.metrics import Measure, number
from experiments.report.results import Results, Row
from experiments.report.tables import Column, Table


def _trained(of):
    """Returns the reader of what a training cost, which is none of a run that takes another's parameters."""
    return lambda result: None if result.trained_in else of(result)


_MEASURES = {
    "params 10^6": Measure(lambda r: r.params / 1e6, ".2f", ".2f"),
    "epochs": Measure(_trained(lambda r: r.train.epochs), ".1f", ".1f"),
    "target tokens 10^6": Measure(_trained(lambda r: r.train.target_tokens / 1e6), ",.2f", ",.2f"),
    "training PFLOP": Measure(_trained(lambda r: r.train.flops / 1e15), ".2f", ".2f"),
    "target tokens/s": Measure(_trained(lambda r: r.timing.target_tokens_per_s), ",.0f", ",.0f"),
    "training min": Measure(_trained(lambda r: r.timing.train_s / 60), ",.1f", ",.1f"),
    "translating min": Measure(lambda r: r.timing.decode_s / 60, ",.1f", ",.1f"),
}
_HOURS = Measure(lambda r: r.device_hours, ",.2f", "")
_HOW = ("Scale", "steps", "seeds", "device", "code")


def build(found: Results) -> Table:
    """Makes the table from whatever runs there are; rows without results stay, and are blank."""
    hours = {row.variant.name: _HOURS.values(row) for row in found.shown}
    total = sum(sum(of_row) for of_row in hours.values())
    threads, split = {row.variant.name: _threads(row) for row in found.shown}, _split(found)
    cells = [
        (
            row.label,
            str(len(row.results) or ""),
            threads[row.variant.name],
            *(measure.cell(row) for measure in _MEASURES.values()),
            number(sum(hours[row.variant.name]) if row.results else None, _HOURS.form),
        )
        for row in found.shown
    ]
    blank = [""] * len(_MEASURES)
    records = [
        {"name": found.name_of(row), "row": row.variant.name}
        | {"runs": len(row.results), "threads": threads[row.variant.name]}
        | {title: measure.mean(row) for title, measure in _MEASURES.items()}
        | {"device hours": sum(hours[row.variant.name])}
        for row in found.shown
    ]
    return Table(
        title=f"{found.name}: what the runs cost.",
        columns=(
            Column("row", text=True),
            Column("runs"),
            Column("threads", drop=1),  # a row made again asks for them
            *(Column(title, drop=rank) for rank, title in enumerate(_MEASURES, 2)),
            Column("device hours"),
        ),
        rows=cells and (*cells, ("all", str(len(found.done)), "", *blank, number(total, _HOURS.form))),
        groups=(*(row.group for row in found.shown), "all"),
        caption=caption(found, _HOW),
        notes=(
            "PFLOP: 10^15 floating-point operations, counted by formula for the weight products over full batches. "
            "Training includes compilation, evaluation and checkpoints, and target tokens/s are over all of it. The "
            f"CPU that a run computes on is one device, whatever its threads{_SPLIT if split else ''}.",
            *((_TAKEN,) if any(result.trained_in for result in found.done) else ()),
            *((_again(found, split),) if any(threads.values()) else ()),
            *seeds_note(found),
        ),
        records=tuple(records),
    )


def _threads(row: Row) -> str:
    """Returns the numbers of threads that its runs computed with on a CPU; blank where none, or not recorded."""
    return ", ".join(map(str, sorted({cpu.threads for cpu in _cpus(row)} - {None})))


def _cpus(row):
    return [result.device for result in row.results if result.device.platform == "cpu"]


def _split(found):
    """Returns {devices: labels of rows} of the rows that a CPU computed as several devices."""
    split: dict[int, list[str]] = {}
    for row in found.shown:
        for count in sorted({cpu.count for cpu in _cpus(row)} - {1, None}):
            split.setdefault(count, []).append(row.label)
    return split


_SPLIT = ", or as many as it was split into"
_TAKEN = "Blank: a row that takes the parameters of another's training."


def _again(found: Results, split: Mapping[int, Sequence[str]]) -> str:
    points = any(row.asked and row.asked.point for row in found.shown)
    of_point = " Of a point of a grid --only names the variant, and --grid FIELD=VALUE each field." if points else ""
    over = "".join(
        f" Of {', '.join(rows)} also --set parallel.devices={count}, with JAX_NUM_CPU_DEVICES={count} in the "
        "environment."
        for count, rows in split.items()
    )
    return (
        f"A row again: python -m launch.local {found.name} --only=ROW --seeds=SEEDS --workdir=DIR --set "
        f"parallel.threads=THREADS.{of_point}{over} On the same type of CPU that gives the same numbers to the last "
        "digit; on another, numbers that differ by about as much as those of two seeds do."
    )
