"""Measures and trains for some minutes on a borrowed GPU, and packs what is done as it is done.

    python -m launch.gpu [--minutes=9] [--out=DIR] [--sweep=SWEEP@SCALE:SEEDS ...] [ARGUMENTS OF launch.local ...]

First the training step of the paper's base and big is timed, and cuDNN's attention held against plain JAX's, which is
a failure where it is not right for rows as training has them. Then the sweeps are run one after the other, each row's
seeds stacked in one process, several processes on the card at once, the longest first. Of a sweep to be tuned,
SWEEP@SCALE:SEEDS:FIELD=VALUES, these are the points of each row, and then the seeds of the one that it chose. Rows that
by the estimate do not fit into the time that is left are not started; what still runs when it is over is lost. The same
command goes on with what is missing, there or, with the archives of the call before in gpu-results/, on another
machine. `make gpu-bundle` makes what the machine lacks, `make gpu` runs this there, `make gpu-take` takes what came
back; see launch/README.md.

Exit status: 0, whether or not the time sufficed; 1 where something failed; 2 for what the caller has to mend; 130 when
interrupted (what was running is ended, what is done is packed).
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import pathlib
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence

from experiments import points, registry
from experiments.bench.harness.contestant import PLATFORMS
from launch import matching
from launch.gpu import archives, mps
from launch.gpu.budget import OVERHEAD, SLOWDOWN, Card, training_seconds
from launch.gpu.timed import Diary, run_until
from launch.gpu.wanted import FORM, Wanted, planned, possible, programs
from launch.local import interruptible
from launch.request import variant_of
from tx import cli, plugins
from tx.errors import UserError, one_line_errors
from tx.runs import state
from tx.runs.run_dir import RunDir

SWEEPS = (
    "table3@multi30k:5",
    "table3@multi30k:5:optim.lr_factor=0.7,1.0,1.4,2.0,2.8",
    "table3@tatoeba:3",
    *(f"{name}@multi30k:3" for name in ("add_norm", "positions", "similarity", "heads", "depth", "architecture")),
)
BUNDLE = pathlib.Path("gpu-bundle")
JOBS = 8  # a row starts and compiles for longer than it trains, so that fewer would leave the card idle
MARGIN = 30.0  # seconds at the end, for processes to end and the last results to be packed
PAPER_STEP = ("data.batch_rows=96", "model.dtype=bfloat16", "model.attention_backend=cudnn")
BENCH = {  # by platform: the sizes that are timed by default, and how (experiments/bench/README.md)
    "gpu": (
        ("paper", "table3/big@paper"),
        ["--sentences=20000", "--rounds=3", *(f"--set={field}" for field in PAPER_STEP)],
    ),
    "cpu": (("multi30k",), ["--sentences=100", "--rounds=1"]),
}

Command = Callable[[list[str]], list[str]]
"""The command line of a Python module, given its name and arguments."""


def python(arguments: list[str]) -> list[str]:
    """Returns the command line of `python -m`."""
    return [sys.executable, "-m", *arguments]


class Session:
    """Session on a borrowed GPU: its time, its folders, its diary.

    Args:
      args: parsed.
      rest: arguments for launch.local.
      command: takes the place of Python in tests.
    """

    def __init__(self, args: argparse.Namespace, rest: list[str], command: Command):
        seconds = 60 * args.minutes
        self.deadline = time.monotonic() + seconds - min(MARGIN, seconds / 4)
        self.args, self.rest, self.command = args, rest, command
        self.runs = args.work.resolve() / "runs"
        for option, folder in ("--work", self.runs), ("--out", args.out):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"cannot make {folder}: {error.strerror}; give another {option}") from None
        self.diary = Diary(args.out / "log.txt")
        for folder in (args.earlier, args.out):
            if count := archives.unpack(folder, self.runs):
                self.diary.write(f"{count} results of an earlier call, from {folder}")
        self._packer, self.card = archives.Packer(self.runs, args.out), Card(args.slowdown, args.overhead, args.jobs)
        self.failed = False

    def left(self) -> float:
        """Returns the seconds until what runs is ended."""
        return self.deadline - time.monotonic()

    def leave_out_damaged(self) -> None:
        """Deletes the runs whose result cannot be read, or is of another seed: a launch would leave it as it is."""
        for path in list(archives.results(self.runs)):
            if (found := state.read(RunDir(path.parent))[0]).name == "failed":
                self.diary.write(f"{path.parent.relative_to(self.runs)} is left out: {found.reason}")
                shutil.rmtree(path.parent)

    def leave_out_stale(self, wanted: Wanted) -> None:
        """Deletes the runs of a sweep that another code, recipe or text has made, which would be in the way.

        It is called before anything is packed: what is stale is nothing to bring home. Archives of an earlier call that
        hold it are not written over, but set aside.
        """
        try:
            runs = possible(wanted, self.runs, self.rest)
        except UserError as error:  # said again where the sweep is to run; until then others can
            self.diary.write(f"{wanted}: {error}")
            return
        stale = [run for run in runs if run.state.name == "stale"]
        for run in stale:
            self.diary.write(f"{run.label} is left out: {run.state.reason}")
            shutil.rmtree(run.folder.path)
        if names := {run.folder.result.relative_to(self.runs).as_posix() for run in stale}:
            for path in archives.set_aside(self.args.out, names):
                self.diary.write(f"what was packed before is in {path}")

    def pack(self) -> None:
        """Packs what is done."""
        if done := self._packer.pack():
            self.diary.write(f"{len(done)} more packed, up to {done[-1]}")
        archives.copy_tunings(self.runs, self.args.out)

    def module(self, arguments: list[str], deadline: float) -> None:
        """Runs a Python module, at the latest until the deadline, packing what is done meanwhile."""
        status = run_until(self.command(arguments), min(deadline, self.deadline), self.diary, self.pack)
        if status:
            self.failed = True
            self.diary.write(f"{arguments[0]}: exit status {status}; the end of what it said:", self.diary.tail())

    def bench(self) -> None:
        """Times the training step at every size, then looks where cuDNN's attention is right: by --bench_seconds."""
        sizes, settings = BENCH[self.args.platform]
        asked = {
            f"bench-{re.sub(r'[^A-Za-z0-9_.-]', '-', size)}.json": [
                *("train", f"--size={size}", "--peer=none", *settings, *shlex.split(self.args.bench_args))
            ]
            for size in self.args.bench or sizes
        }
        self._measure(asked | {"attention.json": ["attention"]})

    def _measure(self, asked):
        """Has experiments.bench write what is asked, {file: its arguments}, so far as --bench_seconds suffice."""
        args, until = self.args, time.monotonic() + self.args.bench_seconds
        for name, arguments in asked.items():
            if not (args.out / name).exists() and (args.earlier / name).exists():
                shutil.copyfile(args.earlier / name, args.out / name)
            if (args.out / name).exists() or time.monotonic() >= until:
                continue
            command, *rest = arguments
            fixed = [f"--platform={args.platform}", f"--out={args.out / name}"]
            self.module(["experiments.bench", command, *fixed, *rest], until)
            self.diary.write(f"{name}: {'done' if (args.out / name).exists() else 'not done'}")

    def sweep(self, wanted: Wanted) -> None:
        """Runs the rows of a sweep that fit, again and again until none is left that does.

        What is in its way is said, and fails this sweep alone.
        """
        try:
            self._sweep(wanted)
        except UserError as error:
            self.failed = True
            self.diary.write(f"{wanted}: {error}")

    def _sweep(self, wanted):
        began, tried, before = time.monotonic(), set(), _done(self._planned(wanted))
        while self.left() > 0:
            runs = self._planned(wanted)
            rows, around = self._missing(wanted, runs), self._points(wanted, runs)
            # Apart, since beside --grid a row's name means all points around it.
            kinds = [[row for row in rows if row not in tried and (row in around) == grid] for grid in (True, False)]
            choices = (self.card.choose({row: rows[row] for row in kind}, self.left()) for kind in kinds)
            if not (chosen := next(filter(None, choices), None)):
                break
            tried.update(chosen)
            estimate = self.card.seconds(rows[row] for row in chosen)
            self.diary.write(f"{wanted}: {', '.join(chosen)}: about {estimate:.0f} s, {self.left():.0f} s are left")
            self.module(self._launch(wanted, chosen, around), self.deadline)
        self._log_sweep(wanted, before, time.monotonic() - began)

    def _planned(self, wanted):
        return planned(wanted, self.runs, self.rest)

    def _points(self, wanted, runs):
        """Returns {row as `_missing` has it: as --only takes it} of the points of --grid; none of what is tuned."""
        # A matched point has a field that nobody names.
        apart = {matching.SLACK} if any(one.partition("=")[0] == "--match" for one in self.rest) else set()
        found = {}
        for run in runs if not wanted.tune else ():
            if run.point:
                point = {field: value for field, value in run.point.items() if field not in apart}
                name = points.name(registry.parse(run.registered).variant.name, point)
                found[variant_of(run.name)] = name.replace(",", "?")  # a comma would end it
        return found

    def _launch(self, wanted, rows, around):
        only = ",".join(around.get(row, row) for row in rows)
        rest = _without(self.rest, "--only", *([] if rows[0] in around else ["--grid", "--match"]))
        # One process a row: what is lost at the end is then a row, and no row waits for all that share its program.
        return [
            *("launch.local", *wanted.arguments, f"--workdir={self.runs}", f"--only={only}"),
            # A rehearsal compiles alone on the card, and these rows need a fraction of its memory.
            *(f"--jobs={self.args.jobs}", "--no_rehearsal", *rest, f"--stack={wanted.stacked}"),
        ]

    def _log_sweep(self, wanted, before, seconds):
        runs = self._planned(wanted)
        now = _done(runs)
        for run in runs:
            if run.folder.error.exists():
                error = run.folder.read("error")
                self.diary.write(f"{run.label} failed: {error['error']}", error.get("traceback", ""))
        new = sum(map(training_seconds, programs(wanted, runs, now - before).values()))
        made = f", {new:.1f} s of training as predicted, made in {seconds:.0f} s" if new else ""
        missing = ", ".join(self._missing(wanted, runs)) or "none"
        self.diary.write(f"{wanted}: {len(now)} of {len(runs)} runs are done{made}; rows not done: {missing}")

    def _missing(self, wanted, runs):
        """Returns {row, as --only takes it: seconds, as `Card` takes them} of the runs that are not done."""
        labels, rows = {run.label for run in runs} - _done(runs), {}
        for (row, _), configs in programs(wanted, runs, labels).items():
            # A further program of a row starts when the one before has ended; `Card` counts one start a row.
            start = self.args.overhead / self.args.slowdown if row in rows else 0.0
            rows[row] = rows.get(row, 0.0) + start + training_seconds(configs)
        return rows


def _done(runs):
    return {run.label for run in runs if run.folder.result.exists()}


def _without(rest, *options):
    parser = cli.Parser(add_help=False)
    for option in options:
        parser.add_argument(option, action="append")
    return parser.parse_known_args(rest)[1]


def _prepare(sweeps, workdir, rest):
    from launch import preparation  # what it needs is slow to import

    plugins.load()  # it is a process of its own
    for wanted in sweeps:
        with contextlib.suppress(UserError):  # it is said where the sweep is to run; the others are prepared
            preparation.prepare(planned(wanted, workdir, rest))


def _parser():
    parser = cli.Parser(
        prog="python -m launch.gpu",
        description=__doc__.splitlines()[0],
        epilog="What is not listed is passed on to launch.local; a value then comes after '=': --set=train.steps=20.",
    )
    add = parser.add_argument
    add("--minutes", type=float, default=9, help="of all, start to end (default: %(default)s)")
    add("--sweep", type=Wanted.parse, action="append", metavar=FORM, help=f"default: {' '.join(SWEEPS)}")
    add("--out", type=cli.path, default="gpu-out", help="where archives and log go (default: %(default)s)")
    add("--bundle", type=cli.path, default=BUNDLE, help="what gpu-bundle made (default: %(default)s)")
    add("--earlier", type=cli.path, default="gpu-results", help="archives of earlier calls (default: %(default)s)")
    add("--work", type=cli.path, default="build/gpu", help="folder for runs and caches (default: %(default)s)")
    add("--platform", choices=tuple(PLATFORMS), default="gpu")
    add("--jobs", type=int, default=JOBS, help="processes at once (default: %(default)s)")
    slowdown = "how many times the seconds that are predicted for an H100 training takes (default: %(default)g)"
    add("--slowdown", type=float, default=SLOWDOWN, help=slowdown)
    overhead = "seconds of a process without its training (default: %(default)g)"
    add("--overhead", type=float, default=OVERHEAD, help=overhead)
    add("--bench", action="append", metavar="SIZE", help="what is timed, as for experiments.bench; repeatable")
    add("--bench_seconds", type=float, default=140, help="for that; 0 for none (default: %(default)s)")
    add("--bench_args", default="", help="more arguments of experiments.bench train")
    return parser


@one_line_errors
def main(argv: Sequence[str] | None = None, *, command: Command = python, prepare: Callable = _prepare) -> int:
    """Runs everything; returns the exit status. The keywords take the place of the real things in tests."""
    args, rest = _parser().parse_known_args(plugins.take(list(sys.argv[1:] if argv is None else argv)))
    _check(args)
    sweeps = args.sweep or list(map(Wanted.parse, SWEEPS))
    if not (args.bundle / "text").is_dir():
        raise UserError(f"{args.bundle} holds no text; run `make gpu-bundle` first, and bring that folder here")
    os.environ["TX_DATA_DIR"] = str((args.bundle / "text").resolve())
    os.environ["TX_CACHE_DIR"] = str(args.work.resolve() / "cache")
    os.environ["JAX_PLATFORMS"] = PLATFORMS[args.platform]  # no GPU is an error, and not a day on a CPU
    for wanted in sweeps:
        planned(wanted, args.work.resolve() / "names", rest)  # what is wrong with one is said at once; no run is there
    with interruptible():  # what was started ends with this process, and so does the daemon
        return _run(Session(args, rest, command), sweeps, prepare)


def _check(args):
    """Raises UserError for a number that no session can have."""
    for name in ("minutes", "jobs", "slowdown"):
        if not 0 < (number := getattr(args, name)) < math.inf:
            raise UserError(f"--{name} must be above 0; got {number:g}")
    for name in ("overhead", "bench_seconds"):
        if not 0 <= (number := getattr(args, name)) < math.inf:
            raise UserError(f"--{name} must be at least 0; got {number:g}")


def _run(session: Session, sweeps: Sequence[Wanted], prepare: Callable) -> int:
    """Runs a session from its first look at what is there; returns the exit status."""
    args = session.args
    session.leave_out_damaged()
    for wanted in sweeps:
        session.leave_out_stale(wanted)
    session.pack()
    # Text becomes tokens while the first benchmark compiles; the launcher makes what is not ready when it starts.
    preparing = multiprocessing.get_context("spawn").Process(
        target=prepare, args=(sweeps, session.runs, session.rest), daemon=True
    )
    preparing.start()
    session.bench()  # alone on the card
    with (
        mps.side_by_side(args.work.resolve() / "mps") if args.platform == "gpu" else contextlib.nullcontext() as shared
    ):
        session.diary.write(f"processes {'share the card by MPS' if shared else 'take turns on the device'}")
        for wanted in sweeps:
            session.sweep(wanted)
    session.pack()
    session.diary.write(f"the end; {max(0.0, session.left()):.0f} s were left")
    return 1 if session.failed else 0
