"""Checks the gradients of a configuration: its first step in several ways, held against one device's and rounding.

    python -m tx.check --config=experiments/config.py:table3/base@smoke [--set FIELD=VALUE] [--ways=jit2,pmap2,micro4]

Ways are jitN, fsdpN and pmapN (over N devices, simulated on a CPU), microN (in N micro-batches), remat and bfloat16;
without --ways, all that the configuration and this machine allow. The exit status is 1 where one differs by more than
rounding explains.
"""

import sys

from tx import cli, plugins
from tx import config as config_lib
from tx.cli import Parser
from tx.errors import UserError, one_line_errors
from tx.runtime import backend, determinism, environment
from tx.runtime.backend import keep_freed_memory, one_step_at_a_time
from tx.training.gradient_check import ALLOWED, Checked, check_gradients, devices_of, every_way

DEVICES = 2  # that a CPU simulates, where --ways names none


@one_line_errors
def main(argv: list[str]) -> int:
    config, ways = _asked(plugins.take(argv))
    environment.refuse_other_numbers()
    keep_freed_memory()
    determinism.fix(config.parallel)
    one_step_at_a_time()
    backend.simulate_devices(devices_of(ways) if ways else DEVICES)
    backend.start()
    checked = check_gradients(config, ways or every_way(config), must=bool(ways), tell=_tell)
    print(_described(config.name, checked))
    return 1 if any(found.beyond for found in checked.ways.values()) else 0


def _asked(argv):
    """Reads a command line: the configuration, and the ways that are asked for, [] for all."""
    parser = Parser(
        prog="python -m tx.check",
        description=__doc__.splitlines()[0],
        epilog="--config=FILE.py:NAME names the configuration, --config.FIELD=VALUE changes a field of it.",
    )
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field; repeatable")
    parser.add_argument("--ways", help="comma-separated: jitN, fsdpN, pmapN, microN, remat, bfloat16 (default: all)")
    parser.add_argument(plugins.OPTION, metavar="FILE", help=plugins.HELP)
    args = parser.parse_args(cli.split_config_arguments(argv)[2])
    config, _ = cli.config_from(argv)
    settings = [setting.partition("=") for setting in args.set]
    if wrong := [setting for setting, (_, equals, _) in zip(args.set, settings, strict=True) if not equals]:
        raise UserError(f"--set takes FIELD=VALUE; got {wrong[0]!r}")
    config_lib.update(config, {field: value for field, _, value in settings}, where="--set")
    config_lib.validate(config)
    ways = [way.strip() for way in args.ways.split(",")] if args.ways is not None else []
    if (devices := devices_of(ways)) > (rows := config.data.batch_rows):  # before so many are simulated, if they can be
        raise UserError(f"--ways: {devices} devices, but data.batch_rows={rows} can be split over {rows} at most")
    return config, list(dict.fromkeys(ways))


def _tell(way):
    print(f"{way} ...", file=sys.stderr, flush=True)


def _described(name: str, checked: Checked) -> str:
    """Returns the tables of differences, one for each type of the arithmetic, and the verdict on each way."""
    lines = [f"{name}: the first step without dropout; on one device in float32 its loss is {checked.loss:.6g}", ""]
    lines += [
        "The largest difference from one device's gradient in each group of parameters, over the group's largest",
        f"gradient, in roundings of float32 (2^-23). What is allowed is, of each parameter, {ALLOWED:g} times what",
        "rounding was measured to make of itself; the largest of a group stands in the column of that name.",
    ]
    for dtype, rounding in checked.rounding.items():
        columns = {f"rounding, {dtype}": rounding}
        columns |= {way: found.groups for way, found in checked.ways.items() if found.dtype == dtype}
        lines += ["", *_table(columns)]
    lines += ["", *(_verdict(way, found) for way, found in checked.ways.items())]
    lines += [f"{way}: left out: {why}" for way, why in checked.left_out.items()]
    if checked.ways and not any(found.beyond for found in checked.ways.values()):
        lines.append("Where losses of these ways part later in a training, that is rounding, amplified.")
    return "\n".join(lines)


def _table(columns):
    groups = list(next(iter(columns.values())))
    first = max(map(len, groups))
    yield "  ".join(["".ljust(first), *(name.rjust(max(len(name), 8)) for name in columns)])
    for group in groups:
        cells = [f"{values[group]:.3g}".rjust(max(len(name), 8)) for name, values in columns.items()]
        yield "  ".join([group.ljust(first), *cells])


def _verdict(way, found):
    if not found.beyond:
        return f"{way}: no more than rounding to {found.dtype}"
    worst, times = next(iter(found.beyond.items()))
    more = f"; so do {len(found.beyond) - 1} others" if len(found.beyond) > 1 else ""
    return f"{way}: MORE than rounding to {found.dtype}: {worst} differs by {times:.3g} times as much{more}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
