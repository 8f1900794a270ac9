"""Plans a sweep for devices that need not be there: what each row takes, and all of them; nothing is started.

    python -m launch.plan table3@paper --device=h100 --count=8 [--price=2.5] [--mfu=0.3] [--per_run=1]
        [--seeds=3] [--only='A/*'] [--set model.dtype=bfloat16] [--estimate]

The selection is that of `launch.local`; what is done in --workdir is not counted again. Of GPUs each run takes one, of
TPUs all, unless parallel.devices or --per_run says otherwise. What a launch or a training would refuse is refused.
Where the compiler for the device is installed, it says what memory every row's step takes: the first time it compiles
for that, for minutes. Else, and with --estimate, memory is estimated.
"""

import argparse
import functools
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from launch import devices, dispatch, display, forecast, plan, tuning
from launch.devices import Device
from launch.display import say
from launch.forecast import Forecast, Memory
from launch.plan import PlannedRun, selection
from tx import cli, plugins
from tx.errors import UserError, one_line_errors

HEADS = ("row", "runs", "FLOPs", "tokens a side", "hours", "memory", "fits")


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m launch.plan", description="Plans a sweep for devices; starts nothing.")
    selection.add_arguments(parser)
    parser.add_argument(
        "--device", required=True, help=f"one of {', '.join(devices.DEVICES)}; v5e-8 is eight of that kind"
    )
    parser.add_argument("--count", type=int, metavar="N", help="how many devices (default: 1)")
    parser.add_argument("--per_run", type=int, metavar="N", help="devices a run (default: 1, of TPUs all)")
    parser.add_argument("--price", type=float, metavar="P", help="of a device for an hour, in any currency")
    parser.add_argument("--estimate", action="store_true", help="estimate memory; compile nothing")
    parser.add_argument("--mfu", type=float, metavar="SHARE", help="of the peak, instead of what was measured")
    return parser


def _counts(args: argparse.Namespace) -> tuple[Device, int, int]:
    """Returns (device, how many, how many a run by the command line); UserError where they do not go together."""
    device, count = devices.parse(args.device)
    if None not in (count, args.count):
        raise UserError(f"--device={args.device} says how many there are, and --count too; leave one out")
    count = 1 if count is None and args.count is None else count or args.count
    per_run = (count if device.tpu else 1) if args.per_run is None else args.per_run
    if not 1 <= per_run <= count:
        raise UserError(f"--per_run must be from 1 to the {count} devices; got {per_run}")
    if args.mfu is not None and not 0 < args.mfu <= 1:
        raise UserError(f"--mfu must be above 0, and at most 1; got {args.mfu:g}")
    if args.price is not None and not args.price >= 0:
        raise UserError(f"--price must not be below 0; got {args.price:g}")
    return device, count, per_run


def _devices_a_run(args: argparse.Namespace, runs: Sequence[PlannedRun], count: int, per_run: int) -> int:
    """Returns how many devices a run takes: by its parallel.devices, where that is not 1, which nobody need have said.

    Raises UserError where rows differ in it, where --per_run says otherwise, and where there are not as many.
    """
    own = sorted({run.config.parallel.devices or count for run in runs})
    if len(own) > 1:
        raise UserError(f"rows take {' and '.join(map(str, own))} devices (parallel.devices); plan them apart")
    if own == [1]:
        return per_run
    if args.per_run not in (None, *own):
        raise UserError(f"parallel.devices={own[0]}, but --per_run={args.per_run}; leave one out")
    if own[0] > count:
        raise UserError(f"parallel.devices={own[0]}, but there are {count} devices; plan for more with --count")
    return own[0]


def _refuse_uneven(runs: Sequence[PlannedRun], per_run: int) -> None:
    """Raises UserError for a run that so many devices cannot share evenly, as training would (tx/training/sharding)."""
    for run in runs:
        shards, rows = run.config.parallel.fsdp_shards, run.config.data.batch_rows
        parts = run.config.train.micro_batches
        if per_run % shards:
            raise UserError(f"{run.name}: parallel.fsdp_shards={shards} does not divide {per_run} devices a run")
        if rows % (per_run * parts):
            over = f"{per_run} devices a run" + (f" in {parts} micro-batches" if parts > 1 else "")
            raise UserError(
                f"{run.name}: data.batch_rows={rows} cannot be split over {over}; make it a multiple of "
                f"{per_run * parts}, or --per_run a divisor of {rows // parts}"
            )


def table(rows: Sequence[Forecast], per_run: int, price: float | None) -> Table:
    """Returns the table of forecasts; hours are those of one run, costs those of all runs of a row."""
    made = Table(*HEADS, *["cost"] * (price is not None), box=None)
    for column in made.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for row in rows:
        cost = [f"{price * per_run * row.hours * row.runs:,.2f}"] if price is not None else []
        count = f"{row.runs}" + (f" ({row.done} done)" if row.done else "")
        hours = "?" if row.hours is None else f"{row.hours:.3g}"
        numbers = (count, f"{row.flops:.2e}", f"{row.tokens:.2e}", hours, _size(row.memory))
        made.add_row(row.name, *numbers, "yes" if row.memory.fits else "NO", *cost)
    return made


def _size(memory: Memory) -> str:
    """Returns the cell of a memory: "13.6 GiB", "37 MiB"; of an estimate with ~, "" where it is not known."""
    if memory.bytes is None:
        return ""
    size = f"{memory.bytes / 2**30:.1f} GiB" if memory.bytes >= 2**30 else f"{memory.bytes / 2**20:.0f} MiB"
    return size if memory.compiler else f"~{size}"


def notes(rows: Sequence[Forecast], device: Device, per_run: int) -> list[str]:
    """Returns where the numbers come from, and where they are not to be trusted, in lines."""
    found = [
        f"{one.mfu:.1%} of {device.peak / 1e12:g} TFLOP/s (MFU), from {one.source}: {one.what}"
        for one in dict.fromkeys(row.measured for row in rows if row.measured)
    ]
    if per_run > 1 and found:
        found.append(f"what {per_run} devices lose by waiting for one another is not in it")
    for dtype, wanted in sorted({(row.config.model.dtype, row.measured.dtype) for row in rows if row.measured}):
        if wanted not in ("", dtype):
            found.append(f"measured in {wanted}; {dtype} takes longer: --set model.dtype={wanted}")
    trained = [row for row in rows if row.flops]
    if chosen := dispatch.describe(row.config for row in trained for _ in range(row.runs)):
        found.append(f"updates in one call of the device: {chosen}")
    if small := sum(row.small for row in rows):
        found.append(f"{small} rows have steps far smaller than what was measured: they take longer than this says")
    if any(row.measured for row in rows):
        found.append("hours are of training alone")
    if known := dict.fromkeys(row.memory.compiler for row in rows if row.memory.compiler):
        found.append(
            f"memory, and whether it fits, by the compiler's analysis of the training step: {', '.join(known)}"
        )
    if any(not row.memory.compiler for row in rows):
        missing = dict.fromkeys(row.memory.missing for row in rows if row.memory.missing)
        found.append("memory with ~ is an estimate" + "".join(f"; {why}" for why in missing))
    return found


def _why_no_hours(args, device):
    """Returns a line where hours cannot be told; UserError where a price was given for them."""
    try:
        devices.nearest(device, 1.0, args.mfu)
    except UserError as error:
        if args.price is not None:
            raise
        return [f"hours are not known: {error}"]
    return []


def _in_all(rows, device, count, per_run, price):
    number, total = sum(row.runs for row in rows), sum(row.flops * row.runs for row in rows)
    line, where = f"in all: {number} runs, {total:.2e} FLOPs", f" on {count} {device.name}"
    if any(row.hours is None for row in rows):
        return line + where
    used, wall = sum(row.hours * row.runs for row in rows) * per_run, forecast.hours(rows, count // per_run)
    cost = "" if price is None else f", {price * count * wall:,.2f} for all devices as long as that"
    return f"{line}, {used:.1f} device hours, {wall:.1f} hours{where}{cost}"


def show(args: argparse.Namespace, console: Console) -> None:
    """Prints the plan that parsed arguments ask for."""
    device, count, per_run = _counts(args)
    args.accelerated = per_run == 1  # `launch.dispatch` chooses for one device, and looks at parallel.devices itself
    runs = [run for stage in tuning.stages(args) for run in stage.preview()]
    plan.refuse_clashes(runs)
    per_run = _devices_a_run(args, runs, count, per_run)
    _refuse_uneven(runs, per_run)
    memory = functools.partial(forecast.analysed, device=device, per_run=per_run, tell=functools.partial(say, console))
    unknown = _why_no_hours(args, device)
    rows = forecast.forecasts(runs, device, per_run, args.mfu, None if args.estimate else memory)
    console.print(table(rows, per_run, args.price))
    say(console, _in_all(rows, device, count, per_run, args.price))
    if too_large := [row.name for row in rows if not row.memory.fits]:
        say(
            console,
            f"{len(too_large)} rows do not fit {device.name}: more --per_run, train.micro_batches or train.remat",
        )
    for line in [*unknown, *notes(rows, device, per_run)]:
        say(console, f"note: {line}")


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Plans and prints; returns the exit status."""
    args = _parser().parse_args(plugins.take(list(sys.argv[1:] if argv is None else argv)))
    show(args, display.console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
