"""Takes results that came back from another machine into a folder of results.

    python -m launch.gpu.take FOLDER [--into=experiments/results] [--other_code]

FOLDER holds the archives. A result is put in its place if it is whole, means today what its name says, and was made by
code that computes what this does; beside the results goes what rows were tuned by. Exit status: 0; 1 where a result was
not taken.
"""

import dataclasses
import pathlib
import sys
import tempfile

from experiments import registry, tuning
from experiments.report import reading
from experiments.report.results import Row, SeedRun
from launch.gpu import archives
from tx import cli, plugins
from tx.errors import UserError, one_line_errors
from tx.files import write_atomically
from tx.runs import fingerprint, provenance, state
from tx.runs.run_dir import RunDir

INTO = pathlib.Path(registry.__file__).with_name("results")


def why_not(row: Row, run: SeedRun, there: RunDir, any_code: bool) -> str:
    """Returns why a run's result is not to be put `there`; "" where nothing speaks against it."""
    if run.state.name != "done":
        return run.state.reason or run.state.name
    if run.stale:
        return "; ".join(run.stale)
    other = state.describe_other_code(run.result.numerics, fingerprint.numerics(run.result.config))
    if other and not any_code:
        return f"other code made it: {other}; --other_code takes it"
    already, old = state.read(there)
    if already.finished and not old:
        return f"{there.path}: {already.reason}"
    if old and old.numerics == run.result.numerics and not row.changes(old.config) and not _same(old, run.result):
        return f"{there.result} is another result of the same; delete one of them"
    return ""


def take(folder: pathlib.Path, into: pathlib.Path, any_code: bool = False) -> tuple[int, list[str]]:
    """Puts the results of a folder's archives in their places; returns (how many are new, a line for each refused).

    Raises UserError where the folder has no archives, or one is damaged.
    """
    if not list(folder.glob(archives.PATTERN)):
        raise UserError(f"no {archives.PATTERN} in {folder}; give the folder that holds what came back")
    new, refused, left_out = 0, [], []
    with tempfile.TemporaryDirectory() as temporary:
        unpacked = pathlib.Path(temporary)
        archives.unpack(folder, unpacked)
        archives.put_tunings(folder, unpacked)
        for found in reading.read([unpacked], left_out=left_out):
            for row, run in ((one, run) for one in found.all_rows for run in one.runs):
                there = RunDir(into / run.path.relative_to(unpacked))
                if why := why_not(row, run, there, any_code):
                    refused.append(f"{found.name_of(row)} seed {run.seed}: {why}")
                elif not ((old := state.read(there)[1]) and _same(old, run.result)):
                    there.path.mkdir(parents=True, exist_ok=True)
                    write_atomically(there.result, _with_code(run.result).to_json())
                    new += 1
            if found.tunings and (into / found.name).is_dir():  # else every result of it was refused
                tuned = [(asked, found.losses(asked)) for asked in found.tunings]
                tuning.record(into / found.name, tuned)
    return new, refused + list(map(str, left_out))


def _same(one, other):
    return len({dataclasses.replace(result, code="").to_json() for result in (one, other)}) == 1


def _with_code(result):
    """Names the revision where the other machine had no git: this one's, if its code computes the same."""
    if result.code or result.numerics != fingerprint.numerics(result.config):
        return result
    return dataclasses.replace(result, code=provenance.revision())


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser(prog="python -m launch.gpu.take", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=cli.path, help="holds the archives that came back")
    parser.add_argument("--into", type=cli.path, default=INTO, help="default: %(default)s")
    parser.add_argument("--other_code", action="store_true", help="also what was made by code that computes otherwise")
    args = parser.parse_args(plugins.take(list(sys.argv[1:] if argv is None else argv)))
    new, refused = take(args.folder, args.into, args.other_code)
    print("\n".join([*refused, f"{new} new results in {args.into}, {len(refused)} refused"]))
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
