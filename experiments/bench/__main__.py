"""`python -m experiments.bench train|decode|memory|seeds|guards|packing|attention|table`: speed and memory.

Where there are other programs for the same, they stand beside ours.
`compile` says what a compiler makes of a step for an accelerator that is not there.
"""

import sys

import rich.console

import tx.config
from experiments import registry
from experiments.bench import arguments, table
from experiments.bench.harness import machine
from experiments.bench.harness.contestant import cores
from experiments.bench.training import MODES
from experiments.report.tables import print_table
from tx import plugins, streams
from tx.errors import UserError, one_line_errors
from tx.files import to_json, write_atomically


def _config(args):
    """Returns the configuration that --size and --set ask for; UserError as in registry.get_config."""
    from experiments.bench.harness.sentences import config_of

    return config_of(args.size, _overrides(args), beside_peers=args.command in table.BESIDE_PEERS)


def _overrides(args):
    overrides = {}
    for each in args.set:
        field, equals, value = each.partition("=")
        if not equals:
            raise UserError(f"--set takes FIELD=VALUE, got {each!r}")
        overrides[field] = value
    return overrides


def _modes(args):
    modes = tuple(mode.strip() for mode in args.modes.split(","))
    for mode in modes:
        if mode not in MODES:
            raise UserError(f"--modes: no mode {mode!r}; there are {', '.join(MODES)}")
    return modes


def _measure(args, threads):
    if args.command == "decode":
        from experiments.bench.decoding import measure_decoding

        peers = [] if args.peers == "none" else [name.strip() for name in args.peers.split(",")]
        asked = {"split": args.split, "beam": args.beam, "peers": peers, "count": args.sentences}
        return measure_decoding(args.run, **asked, threads=threads, turns=args.rounds)
    config, shared = _config(args), {"threads": threads, "platform": args.platform}
    if args.command == "seeds":
        from experiments.bench.seeds import measure_seeds

        return measure_seeds(config, seeds=args.seeds, alone=args.alone, turns=args.rounds, **shared)
    if args.command == "guards":
        from experiments.bench.guards import measure_guards

        return measure_guards(config, turns=args.rounds, threads=threads)
    if args.command == "packing":
        from experiments.bench.packing import measure_packing

        return measure_packing(config, count=args.sentences, turns=args.rounds, threads=threads)
    from experiments.bench.training import measure_memory, measure_training

    shared |= {"peer": args.peer, "modes": _modes(args)}
    if args.command == "memory":
        return measure_memory(config, **shared, steps=args.steps)
    count = args.sentences or (600 if tx.config.is_of_tfds(config.data.corpus) else 4096)
    return measure_training(config, **shared, count=count, turns=args.rounds)


def _compile(args, threads, console):
    """Compiles, writes the program and the result where they are wanted, and prints tables."""
    from experiments.bench import compiling

    earlier = () if args.beside is None else (compiling.read(args.beside),)
    if args.decode and args.stack > 1:
        raise UserError("--stack is of a training step; leave it or --decode out")
    config = registry.get_config(args.run, _overrides(args))
    length = args.length if args.decode else None
    result, text = compiling.measure_compiled(
        config, target=args.target, members=args.stack, length=length, threads=threads
    )
    result |= {"format": compiling.FORMAT, **machine.describe(threads, "cpu")}
    if args.out is not None:
        write_atomically(args.out, to_json(result))
    if args.hlo is not None:
        write_atomically(args.hlo, text)
    print_table(compiling.to_table(*earlier, result), console)
    print_table(compiling.costliest_table(result), console)


def _hold_attention(args, threads, console):
    """Writes the grid of attention's cells where it is wanted, and prints it; returns the exit status."""
    from experiments.bench import attention_grid

    asked = {name: getattr(args, name) for name in ("lengths", "widths") if getattr(args, name)}
    result = attention_grid.measure_attention(**asked, threads=threads, platform=args.platform)
    result |= {"format": table.FORMAT, **machine.describe(threads, args.platform)}
    if args.out is not None:
        write_atomically(args.out, to_json(result))
    print_table(attention_grid.to_table(result), console)
    return 0 if all(cell["right"] for cell in result["cells"] if attention_grid.is_trained(cell)) else 1


def _print(result, console):
    for label, one in result["contestants"].items():
        figures = one["median"] | {key: one[key] for key in ("identical", "bleu") if key in one}
        console.print(f"{label}: " + ", ".join(f"{key} {value:,.4g}" for key, value in figures.items()))
    if result["ratios"]:
        print_table(table.build([result]), console)


def _refuse_places(args):
    for option in ("out", "hlo"):
        path = getattr(args, option, None)
        if path is not None and not path.parent.is_dir():
            raise UserError(f"--{option}: there is no folder {path.parent}")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    parser = arguments.make_parser(__doc__)
    args = parser.parse_args(plugins.take(sys.argv[1:] if argv is None else argv))
    console = rich.console.Console(highlight=False, width=None if sys.stdout.isatty() else 250)
    if args.command == "table":
        if args.check and args.readme is None:
            parser.error("--check needs --readme")
        if args.readme is not None:
            return table.renew_readme(args.readme, args.files, check=args.check)
        streams.write_utf8()
        print(table.to_markdown(table.build(table.read(args.files))), end="")
        return 0
    threads = args.threads or len(cores())
    cores(threads)
    _refuse_places(args)
    if args.command == "compile":
        _compile(args, threads, console)
        return 0
    if args.command == "attention":
        return _hold_attention(args, threads, console)
    result = _measure(args, threads)
    result |= {"format": table.FORMAT, **machine.describe(threads, args.platform)}
    if args.out is not None:
        write_atomically(args.out, to_json(result))
    _print(result, console)
    if args.command == "decode":
        from experiments.bench.decoding import unlike

        for line in (lines := unlike(result)):
            print(line, file=sys.stderr)
        return 1 if lines else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
