"""Minutes on a borrowed GPU: what fits, what is packed when, what is taken back; with fake commands."""

import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import time

import fabricated
import pytest

from experiments import points, registry, tuning
from experiments.report import reading
from launch import command_line, grouping, plan, preparation, text
from launch.gpu import archives, bundle, mps, session, take, timed, wanted
from launch.gpu.budget import Card, training_seconds
from tx import plugins
from tx.data import text_files
from tx.errors import UserError
from tx.runs import fingerprint, provenance

# Takes the place of `python -m`: what it would write lies in FAKE_RESULTS. FAKE_LOG gets a line a call.
FAKE = textwrap.dedent(
    """
    import json, os, pathlib, shutil, sys, time

    with open(os.environ["FAKE_LOG"], "a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\\n")
    options = dict(one.removeprefix("--").split("=", 1) for one in sys.argv if "=" in one)
    if sys.argv[1] == "experiments.bench":
        pathlib.Path(options["out"]).write_text("{}")
        sys.exit()
    print("said by the launcher", flush=True)
    sweep, slow = sys.argv[2], os.environ.get("FAKE_SLOW")
    there, work = pathlib.Path(os.environ["FAKE_RESULTS"]), pathlib.Path(options["workdir"])
    for row in options["only"].split(","):
        if row == slow:
            time.sleep(600)
        runs = [f"{sweep}/{row}/seed{seed}" for seed in range(1, int(options["seeds"]) + 1)]
        if "tune" in options:
            runs = [str(run.relative_to(there)) for run in there.glob(f"{sweep}/{row}+*/seed*")]
            shutil.copy(there / sweep / "tuning.json", work / sweep)
        for run in runs:
            shutil.copytree(there / run, work / run)
    sys.exit(int(os.environ.get("FAKE_STATUS", 0)))
    """
)
ROWS = ("base", "A/h=1", "C/N=2")
SEEDS = 2


NOW = fingerprint.numerics(registry.get_config("table3/base@smoke"))  # rows of one sweep need the same code


def put(folder, row="base", seed=1, numerics=NOW, **changes):
    """Writes a result as this code would."""
    return fabricated.put(folder, f"table3/{row}@smoke", seed, numerics=numerics, **changes)


class Machine:
    """A machine with a bundle and without a GPU, whose sessions last a quarter of a minute."""

    def __init__(self, folder):
        self.folder, self.work, self.out = folder, folder / "work", folder / "out"
        (folder / "fake.py").write_text(FAKE)
        (folder / "bundle" / "text").mkdir(parents=True)
        for row in ROWS:
            for seed in range(1, SEEDS + 1):
                put(folder / "results", row, seed)

    def __call__(self, *arguments, minutes=0.25):
        fixed = {"work": self.work, "out": self.out, "bundle": self.folder / "bundle", "minutes": minutes}
        fixed |= {"earlier": self.folder / "earlier", "platform": "cpu", "overhead": 0.001, "slowdown": 1e-9}
        options = [f"--{name}={value}" for name, value in fixed.items()]
        return session.main(
            [f"--sweep=table3@smoke:{SEEDS}", f"--only={','.join(ROWS)}", *options, *arguments],
            command=lambda arguments: [sys.executable, str(self.folder / "fake.py"), *arguments],
            prepare=print,
        )

    def calls(self):
        log = self.folder / "log.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def launched(self):
        """The rows of every launch."""
        calls = [call for call in self.calls() if call[0] == "launch.local"]
        return [next(one for one in call if one.startswith("--only=")).removeprefix("--only=") for call in calls]

    def packed(self):
        return {name.removesuffix("/result.json").removeprefix("table3@smoke/") for name in members(self.out)}


def members(folder):
    names = []
    for path in sorted(folder.glob(archives.PATTERN)):
        with tarfile.open(path) as archive:
            names += archive.getnames()
    return names


def runs_of(*rows):
    return {f"{row}/seed{seed}" for row in rows for seed in range(1, SEEDS + 1)}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(timed, "POLL", 0.02)
    for name in ("TX_DATA_DIR", "TX_CACHE_DIR", "JAX_PLATFORMS"):  # set by it, so put back afterwards
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log.jsonl"))
    monkeypatch.setenv("FAKE_RESULTS", str(tmp_path / "results"))
    return Machine(tmp_path)


# What fits


def test_one_job_takes_the_sum():
    assert Card(slowdown=2.0, overhead=3.0, jobs=1).seconds([5, 2, 3]) == pytest.approx(3 * 3 + 2.0 * (5 + 2 + 3))


@pytest.mark.parametrize("waves", [1, 2, 5])
def test_equal_rows_go_in_waves_that_share_the_card(waves):
    assert Card(2.0, 3.0, jobs=4).seconds([5] * 4 * waves) == pytest.approx(waves * (3 + 4 * 2.0 * 5))


def test_a_row_trains_while_others_start():
    # Both start, 3 s. At 7 the first short one ends, and the long one has 4 of 6 left. Alone until 10, when the other
    # short one begins to train, it has 1 left, and ends at 12; the short one then has 1 of 2 left, and ends at 13.
    assert Card(1.0, 3.0, jobs=2).seconds([6, 2, 2]) == pytest.approx(13)


def test_the_longest_row_goes_first():
    # Two at a time at half the speed: 8 s, and 2, 2 and 2 s beside it.
    assert Card(1.0, 0.0, jobs=2).seconds([1, 1, 4, 1]) == pytest.approx(7)


def test_no_row_takes_no_time():
    assert Card(2.0, 5.0, jobs=2).seconds([]) == 0


def test_the_longest_that_fit_are_chosen_and_of_equal_ones_the_first():
    card = Card(1.0, 0.0, jobs=1)
    assert card.choose({"base": 4, "long": 9, "short": 3, "last": 2}, seconds=7) == ["base", "short"]
    assert card.choose({"base": 4, "A": 4, "big": 9, "B": 4}, seconds=17) == ["big", "base", "A"]
    assert card.choose({"base": 4}, seconds=3.9) == []


# Seconds of a step in the program compiled for an H100: kernels' bytes at 3.35 TB/s or operations at 989 TFLOP/s, and
# 1.5 us each. The scales were multi30k at 32 x 64 tokens and tatoeba at 64 x 64.
COMPILED = {
    "base@multi30k": 4.549e-3, "A/h=1@multi30k": 3.846e-3, "A/h=32@multi30k": 6.599e-3, "C/N=2@multi30k": 1.883e-3,
    "C/d_model=1024@multi30k": 6.936e-3, "big@multi30k": 8.032e-3, "base@tatoeba": 7.059e-3,
    "A/h=32@tatoeba": 9.518e-3, "C/N=8@tatoeba": 9.001e-3, "C/d_ff=4096@tatoeba": 7.955e-3,
    "C/d_model=1024@tatoeba": 10.888e-3, "big@tatoeba": 12.752e-3,
}  # fmt: skip
COMPILED_AT = {"multi30k": (5, 32, 4000), "tatoeba": (3, 64, 8000)}  # seeds, rows, vocabulary


@pytest.mark.parametrize("name", COMPILED)
def test_the_estimate_is_that_of_the_compiled_step(name):
    seeds, rows, vocabulary = COMPILED_AT[name.partition("@")[2]]
    fixed = {"data.batch_rows": rows, "data.row_length": 64, "model.vocab_size": vocabulary}
    configs = [registry.get_config(f"table3/{name}", fixed | {"train.seed": seed}) for seed in range(1, seeds + 1)]
    assert training_seconds(configs) / configs[0].train.steps == pytest.approx(COMPILED[name], rel=0.07)


# Side by side on the card


def test_a_daemon_is_started_and_ended_and_its_folder_told(tmp_path, monkeypatch):
    daemon = tmp_path / "bin" / mps.CONTROL
    daemon.parent.mkdir()
    daemon.write_text('#!/bin/sh\necho "$@" $CUDA_MPS_PIPE_DIRECTORY $(cat) >> "$(dirname "$0")/log"\n')
    daemon.chmod(0o755)
    monkeypatch.setenv("PATH", f"{daemon.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_MPS_LOG_DIRECTORY", "before")
    with mps.side_by_side(tmp_path / "mps") as runs:
        assert runs
        assert os.environ["CUDA_MPS_PIPE_DIRECTORY"] == str(tmp_path / "mps")
    assert (daemon.parent / "log").read_text().split("\n") == [f"-d {tmp_path}/mps", f"{tmp_path}/mps quit", ""]
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert os.environ["CUDA_MPS_LOG_DIRECTORY"] == "before"


@pytest.mark.parametrize("daemon", ["#!/bin/sh\nexit 1\n", None])
def test_without_a_daemon_processes_take_turns(tmp_path, monkeypatch, daemon):
    monkeypatch.setattr(mps, "WHERE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    if daemon:
        (tmp_path / mps.CONTROL).write_text(daemon)
        (tmp_path / mps.CONTROL).chmod(0o755)
    with mps.side_by_side(tmp_path / "mps") as runs:
        assert not runs
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ


# A session


def test_everything_is_timed_trained_and_packed(machine, capsys):
    assert machine() == 0
    measured = [["experiments.bench", command] for command in ("train", "attention")]
    assert [call[:2] for call in machine.calls()] == [*measured, ["launch.local", "table3@smoke"]]
    assert (machine.out / "bench-multi30k.json").exists()
    assert (machine.out / "attention.json").exists()
    assert machine.packed() == runs_of(*ROWS)
    assert f"{len(ROWS) * SEEDS} of {len(ROWS) * SEEDS} runs are done" in capsys.readouterr().out
    assert "said by the launcher" in (machine.out / "log.txt").read_text()


def test_a_row_is_a_process_and_further_arguments_are_passed_on(machine):
    machine("--jobs=3", "--set=train.log_every=50", "--bench_seconds=0")
    (call,) = machine.calls()
    assert {"--stack=2", "--seeds=2", "--jobs=3", "--no_rehearsal", "--set=train.log_every=50"} <= set(call)
    assert [one for one in call if one.startswith("--only")] == [f"--only={','.join(ROWS)}"]


def test_a_row_and_the_points_around_it_are_launched_apart(tmp_path, machine):
    """Beside --grid the row's name means the points, so that it would never be made, and they without being chosen."""
    calls, fixed = [], {"work": machine.work, "out": machine.out, "bundle": machine.folder / "bundle", "minutes": 9}
    fixed |= {"platform": "cpu", "overhead": 0.001, "slowdown": 1e-9, "bench_seconds": 0, "earlier": tmp_path / "none"}
    grid = ["--grid=model.dropout=0.2,0.3", "--grid", "model.num_heads=2", "--match=params"]
    session.main(
        [f"--sweep=table3/base@smoke:{SEEDS}", *(f"--{name}={value}" for name, value in fixed.items()), *grid],
        command=lambda arguments: calls.append(arguments) or [sys.executable, "-c", ""],
        prepare=print,
    )
    points, base = calls
    assert set(grid) <= set(points)
    named = command_line.parser_of().parse_args(points[1:])
    assert [run.point["model.dropout"] for run in plan.make(named)] == [0.2] * SEEDS + [0.3] * SEEDS
    assert "--only=base" in base
    assert not any("grid" in one or "model." in one or "match" in one for one in base)


def test_a_launch_has_a_process_for_each_row_and_starts_the_longest_first(tmp_path):
    # Rows of group D share base's program, and would else be one process.
    groups = grouping.groups(wanted.planned(wanted.Wanted("table3@multi30k", 3), tmp_path, []), most=3)
    assert len(groups) == 20
    assert groups[0][0].name == "table3/big@multi30k"
    for group in groups:
        assert {run.seed for run in group} == {1, 2, 3}
        assert len({run.name for run in group}) == 1


RATES = (0.5, 1.0, 2.0)
TUNED = f"table3@smoke:{SEEDS}:optim.lr_factor={','.join(map(str, RATES))}"


def put_tuned(folder, row, best, **changes):
    """Writes a row's grid, of which the rate `best` has the lowest loss, and the fresh seeds of that.

    Args:
      changes: fields of the configuration that are not as they are registered.
    """
    for rate in RATES:
        for seed in (1, *(range(2, SEEDS + 2) if rate == best else ())):
            point, overrides = {"optim.lr_factor": rate}, {"optim.lr_factor": rate, **changes}
            name, more = points.name(row, point), {"ppl": 5 + abs(rate - best), "numerics": NOW, "overrides": overrides}
            run = fabricated.put(folder, f"table3/{row}@smoke", seed, folder=name, **more)
            result = json.loads((run / "result.json").read_text())
            result["name"] = result["config"]["name"] = f"table3/{name}@smoke"
            (run / "result.json").write_text(json.dumps(result))


def put_all_tuned(folder):
    """Writes what a launch of TUNED would; returns {row: the rate that it chooses}."""
    best = dict(zip(ROWS, (1.0, 2.0, 0.5), strict=True))
    for row, rate in best.items():
        put_tuned(folder, row, rate)
    grid = {"optim.lr_factor": list(RATES)}
    asked = [tuning.Asked(row, {}, grid, tuple(range(2, SEEDS + 2))) for row in best]
    tuning.record(folder / "table3@smoke", [(one, dict.fromkeys(one.points)) for one in asked])
    return best


def test_rows_are_tuned_and_what_they_chose_comes_back(machine, capsys):
    best = put_all_tuned(machine.folder / "results")
    assert machine(f"--sweep={TUNED}", "--bench_seconds=0") == 0
    first, second = machine.calls()  # the untuned rows come first, as asked for
    assert not any(one.startswith("--tune") for one in first)
    assert {f"--tune={TUNED.rpartition(':')[2]}", f"--only={','.join(ROWS)}", "--stack=3"} <= set(second)
    made = len(best) * (len(RATES) + SEEDS)
    assert f"{made} of {made} runs are done" in capsys.readouterr().out.splitlines()[-2]
    into = machine.folder / "into"
    assert take.take(machine.out, into) == (made + len(best) * SEEDS, [])
    (found,) = reading.read([into])
    assert {one.row: choice.point for one, choice in found.choices} == {
        row: points.name(row, {"optim.lr_factor": rate}) for row, rate in best.items()
    }
    assert machine(f"--sweep={TUNED}", "--bench_seconds=0") == 0
    assert len(machine.calls()) == 2


def test_a_row_that_is_tuned_takes_its_grid_and_then_its_seeds(machine):
    runs = wanted.planned(wanted.Wanted.parse(TUNED), machine.work, ["--only=base"])
    seconds = training_seconds([runs[0].config] * len(RATES)) + training_seconds([runs[0].config] * SEEDS)
    # It starts twice, 1 s each, and trains at a pace at which both stages take 8 s: 10 s in all, of 11.25.
    pace = [f"--slowdown={8 / seconds}", "--overhead=1", "--bench_seconds=0"]
    options = [f"--{name}={value}" for name, value in {"work": machine.work, "out": machine.out}.items()]
    made = session.Session(
        session._parser().parse_known_args([*options, *pace, "--minutes=0.25"])[0], ["--only=base"], lambda _: []
    )
    estimate = made.card.seconds(made._missing(wanted.Wanted.parse(TUNED), runs).values())
    assert estimate == pytest.approx(10)


def test_a_second_call_does_nothing_again(machine):
    machine()
    before = machine.calls()
    assert machine() == 0
    assert machine.calls() == before
    assert machine.packed() == runs_of(*ROWS)


def test_what_came_back_is_not_done_again_on_another_machine(machine):
    put(machine.folder / "runs", "base", 1)
    put(machine.folder / "runs", "base", 2)
    put(machine.folder / "runs", "A/h=1", 1)
    (machine.folder / "earlier").mkdir()
    archives.Packer(machine.folder / "runs", machine.folder / "earlier").pack()
    for name in ("bench-multi30k", "attention"):
        (machine.folder / "earlier" / f"{name}.json").write_text('{"from": "the first call"}')
    assert machine() == 1  # the fake does not skip what is there
    assert [call[0] for call in machine.calls()] == ["launch.local"]
    assert machine.launched()[0] == "A/h=1,C/N=2"
    assert runs_of("base") <= machine.packed()
    assert "the first call" in (machine.out / "bench-multi30k.json").read_text()


def test_what_other_code_made_is_made_anew(machine, capsys):
    run = put(machine.work / "runs", "base", 1, numerics="0" * 12)
    assert machine() == 0
    assert machine.packed() == runs_of(*ROWS)
    assert json.loads((run / "result.json").read_text())["numerics"] == NOW
    assert "other code made it" in capsys.readouterr().out


def test_what_other_code_made_is_left_out_before_anything_is_packed(machine):
    put(machine.work / "runs", "base", 1, numerics="0" * 12)  # of an earlier call, as the next
    put(machine.work / "runs", "A/h=1", 1)
    put(machine.folder / "runs", "C/N=2", 2, numerics="0" * 12)
    (machine.folder / "earlier").mkdir()
    archives.Packer(machine.folder / "runs", machine.folder / "earlier").pack()
    assert machine("--slowdown=1e9", "--bench_seconds=0") == 0  # nothing is started
    assert machine.packed() == {"A/h=1/seed1"}
    assert machine("--bench_seconds=0", "--only=base") == 1  # the fake does not skip what is there
    assert runs_of("base") <= machine.packed()


def test_archives_of_what_other_code_made_are_set_aside(machine, capsys):
    put(machine.folder / "before", "base", 1, numerics="0" * 12)
    put(machine.folder / "before", "A/h=1", 1)
    machine.out.mkdir(exist_ok=True)
    archives.Packer(machine.folder / "before", machine.out).pack()
    packed = (machine.out / "results-1.tar.gz").read_bytes()
    assert machine("--slowdown=1e9", "--bench_seconds=0") == 0  # nothing is started
    assert (machine.out / "stale" / "results-1.tar.gz.1").read_bytes() == packed
    assert "results-1.tar.gz.1" in capsys.readouterr().out
    assert machine.packed() == {"A/h=1/seed1"}
    assert machine("--slowdown=1e9", "--bench_seconds=0") == 0
    assert [path.name for path in (machine.out / "stale").iterdir()] == ["results-1.tar.gz.1"]


def bring(machine):
    """Packs what was put into folder/runs as an earlier call's."""
    (machine.folder / "earlier").mkdir()
    archives.Packer(machine.folder / "runs", machine.folder / "earlier").pack()


@pytest.mark.parametrize("changed", [{"train.steps": 20}, {}])
def test_tuned_rows_of_another_recipe_and_points_chosen_otherwise_are_made_anew(machine, capsys, changed):
    put_all_tuned(machine.folder / "results")
    put_tuned(machine.folder / "runs", "base", best=0.5, **changed)
    if not changed:
        for path in (machine.folder / "runs").rglob("result.json"):
            path.write_text(path.read_text().replace(NOW, "0" * 12))
    bring(machine)
    assert machine(f"--sweep={TUNED}", "--bench_seconds=0", minutes=1) == 0
    assert len(machine.calls()) == 2  # the plain rows, and the tuned ones
    made = len(ROWS) * (len(RATES) + SEEDS)
    assert len(machine.packed()) == made + len(runs_of(*ROWS))
    assert f"{made} of {made} runs are done" in capsys.readouterr().out.splitlines()[-2]
    assert take.take(machine.out, machine.folder / "into")[1] == []
    assert machine(f"--sweep={TUNED}", "--bench_seconds=0") == 0
    assert len(machine.calls()) == 2


def test_what_cannot_be_read_of_an_earlier_call_is_made_anew(machine, capsys):
    (put(machine.folder / "runs", "base", 1) / "result.json").write_text("{}")
    put(machine.folder / "runs", "A/h=1", 1, dev="none")
    bring(machine)
    assert machine("--bench_seconds=0") == 0
    assert machine.packed() == runs_of(*ROWS)
    assert take.take(machine.out, machine.folder / "into") == (len(ROWS) * SEEDS, [])
    assert "table3@smoke/base/seed1 is left out: result.json is damaged" in capsys.readouterr().out


def test_what_is_of_another_text_than_the_bundle_has_is_made_anew(machine, monkeypatch, capsys):
    put(machine.work / "runs", "base", 1)
    monkeypatch.setattr(text, "_fingerprint", lambda data: "another text")
    assert machine("--bench_seconds=0") == 0
    assert machine.packed() == runs_of(*ROWS)
    assert "is left out: the text of numbers is another" in capsys.readouterr().out


def test_what_is_in_the_way_of_one_sweep_keeps_no_other_back(machine, capsys):
    (machine.work / "runs" / "table3@smoke").mkdir(parents=True)
    (machine.work / "runs" / "table3@smoke" / tuning.FILE).write_text("no JSON")
    put_all_tuned(machine.folder / "results")
    options = [f"--sweep={TUNED}", "--sweep=table3@smoke:1", "--bench_seconds=0"]
    # The tuned sweep comes second to the fixture's, and before another.
    assert machine(*options, minutes=1) == 1
    assert machine.launched() == [",".join(ROWS)]
    assert "tuning.json" in capsys.readouterr().out


def test_archives_that_are_not_needed_any_more_are_gone(machine, monkeypatch):
    monkeypatch.setattr(archives, "FULL", 1)
    monkeypatch.setattr(archives, "AT_ONCE", 1)
    for seed in range(1, SEEDS + 1):
        put(machine.work / "runs", "base", seed, numerics="0" * 12)
        put(machine.work / "runs", "A/h=1", seed)
    machine.out.mkdir()
    archives.Packer(machine.work / "runs", machine.out).pack()
    assert len(list(machine.out.iterdir())) == 2 * SEEDS
    assert machine("--slowdown=1e9", "--bench_seconds=0") == 0  # nothing is started
    assert machine.packed() == runs_of("A/h=1")
    for path in (machine.work / "runs").rglob("result.json"):
        path.write_text(path.read_text().replace(NOW, "0" * 12))
    assert machine("--slowdown=1e9", "--bench_seconds=0") == 0
    assert machine.packed() == set()


# Started as a program, its launch a process that takes a minute: what it says is that it is there, and by which number.
INTERRUPTED = textwrap.dedent(
    """
    import sys
    from launch.gpu import session

    minute = "import os, time; print('number', os.getpid(), flush=True); time.sleep(60)"
    if __name__ == "__main__":
        sys.exit(session.main(sys.argv[1:], command=lambda args: [sys.executable, "-c", minute, *args], prepare=print))
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_session_that_is_ended_takes_what_it_has_started_with_it(machine, number):
    (machine.folder / "session.py").write_text(INTERRUPTED)
    put(machine.work / "runs", "A/h=1", 1)
    options = [f"--{name}={getattr(machine, name)}" for name in ("work", "out")]
    options += [f"--bundle={machine.folder / 'bundle'}", "--platform=cpu", "--slowdown=1e-9", "--bench_seconds=0"]
    process = subprocess.Popen(
        [sys.executable, str(machine.folder / "session.py"), "--sweep=table3@smoke:1", "--only=base", *options],
        env=os.environ | {"PYTHONPATH": str(bundle.ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started, until = None, time.monotonic() + 120
    while not started and time.monotonic() < until:
        log = machine.out / "log.txt"
        started = re.search(r"number (\d+)", log.read_text()) if log.exists() else None
        time.sleep(0.1)
    process.send_signal(number)
    assert process.communicate(timeout=60)[1].splitlines() == ["error: interrupted"]
    assert process.returncode == 130
    assert not os.path.exists(f"/proc/{started[1]}")
    assert machine.packed() == {"A/h=1/seed1"}


def test_the_longest_row_that_fits_comes_first_and_what_does_not_fit_waits_until_it_does(machine):
    for seed in range(1, SEEDS + 1):
        put(machine.folder / "results", "big", seed)
    runs = wanted.planned(wanted.Wanted("table3@smoke", SEEDS), machine.work, ["--only=big"])
    # 45 s until the end: big would take 35.5, base and A/h=1 more than is left then, C/N=2 less. The fake takes none.
    pace = 35.5 / training_seconds([run.config for run in runs])
    machine("--only=big", "--jobs=1", f"--slowdown={pace}", "--bench_seconds=0", minutes=1)
    assert machine.launched() == ["big,C/N=2", "base,A/h=1"]


def test_rows_without_time_are_not_started(machine, capsys):
    assert machine("--slowdown=1e9", "--bench_seconds=0") == 0
    assert not machine.calls()
    assert "rows not done: base, A/h=1, C/N=2" in capsys.readouterr().out


@pytest.mark.slow
def test_what_runs_at_the_end_is_ended_and_what_was_done_is_packed(machine, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_SLOW", "A/h=1")
    began = time.monotonic()
    assert machine("--bench_seconds=0", minutes=0.15) == 0
    assert time.monotonic() - began < 300  # what it cut off would take 600
    assert machine.packed() == runs_of("base")
    out = capsys.readouterr().out
    assert "time is over" in out
    assert "rows not done: A/h=1, C/N=2" in out


def test_a_failed_launch_is_told_with_its_last_words(machine, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_STATUS", "1")
    assert machine("--bench_seconds=0") == 1
    assert machine.packed() == runs_of(*ROWS)
    out = capsys.readouterr().out
    assert "launch.local: exit status 1" in out
    assert "said by the launcher" in out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--bundle=nowhere"], "gpu-bundle"),
        (["--only=nonsense"], "nonsense"),
        (["--onl=base"], "unrecognized arguments: --onl=base"),
        (["--retry=2"], "unrecognized arguments: --retry=2"),
        (["--tune=optim.lr_factor=1,2"], "--tune is of one sweep"),
        (["--sweep=table3@smoke:2:optim.lr_factor=1,2", "--grid=model.dropout=0,0.2"], "--grid is of no sweep that is"),
        (["--sweep=table3@smoke:2:optim.lr_fact=1,2"], "optim.lr_fact"),
        (["--sweep=table3@smoke:2:"], "takes SWEEP@SCALE:SEEDS"),
        (["--sweep=table3@smoke"], "takes SWEEP@SCALE:SEEDS"),
        (["--jobs=0"], "--jobs must be above 0; got 0"),
        (["--minutes=nan"], "--minutes must be above 0; got nan"),
        (["--slowdown=0"], "--slowdown must be above 0; got 0"),
        (["--overhead=-1"], "--overhead must be at least 0; got -1"),
        (["--bench_seconds=nan"], "--bench_seconds must be at least 0; got nan"),
    ],
)
def test_what_the_caller_has_to_mend_is_said_before_anything_starts(machine, capsys, arguments, wanted):
    with pytest.raises(SystemExit) as ended:
        machine(*arguments)
    assert ended.value.code == 2
    assert wanted in capsys.readouterr().err
    assert not machine.calls()


# Archives


def test_only_what_is_new_is_packed(tmp_path):
    (tmp_path / "out").mkdir()
    packer = archives.Packer(tmp_path / "runs", tmp_path / "out")
    assert packer.pack() == []
    put(tmp_path / "runs", "base", 1)
    assert packer.pack() == ["table3@smoke/base/seed1"]
    run = put(tmp_path / "runs", "A/h=1", 1)
    (run / "checkpoints").mkdir()
    (run / "stale" / "0").mkdir(parents=True)
    (run / "stale" / "0" / "result.json").write_text("{}")
    assert packer.pack() == ["table3@smoke/A/h=1/seed1"]
    assert packer.pack() == []
    assert members(tmp_path / "out") == [f"table3@smoke/{row}/seed1/result.json" for row in ("base", "A/h=1")]


def test_what_is_gone_is_packed_no_more_and_what_is_made_anew_is_packed_again(tmp_path):
    (tmp_path / "out").mkdir()
    packer = archives.Packer(tmp_path / "runs", tmp_path / "out")
    gone, again = put(tmp_path / "runs", "base", 1), put(tmp_path / "runs", "base", 2)
    assert len(packer.pack()) == 2
    for run in (gone, again):
        shutil.rmtree(run)
    put(tmp_path / "runs", "A/h=1", 1)
    assert packer.pack() == ["table3@smoke/A/h=1/seed1"]
    put(tmp_path / "runs", "base", 2)
    assert packer.pack() == ["table3@smoke/base/seed2"]
    assert members(tmp_path / "out") == [f"table3@smoke/{name}/result.json" for name in ("A/h=1/seed1", "base/seed2")]


def test_a_full_archive_is_closed_and_all_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FULL", 1)
    monkeypatch.setattr(archives, "AT_ONCE", 2)
    (tmp_path / "out").mkdir()
    runs = [put(tmp_path / "runs", row, seed) for row in ROWS for seed in range(1, 4)]
    archives.Packer(tmp_path / "runs", tmp_path / "out").pack()
    assert len(list((tmp_path / "out").iterdir())) == 5  # nine, two at a time
    assert archives.unpack(tmp_path / "out", tmp_path / "there") == len(runs)
    for run in runs:
        there = tmp_path / "there" / run.relative_to(tmp_path / "runs")
        assert (there / "result.json").read_bytes() == (run / "result.json").read_bytes()


@pytest.mark.parametrize(
    "name", ["../table3@smoke/base/seed1/result.json", "table3@smoke/../../seed1/result.json",
             "/table3@smoke/base/seed1/result.json", "table3@smoke/base/seed1/config.json", "base/seed1/result.json",
             "table3@smoke/./seed1/result.json", "table3@smoke//seed1/result.json", "../a@smoke/base/seed1/result.json",
             "table3@smoke/a/../seed1/result.json", "table3@smoke/a\x1b[2J/seed1/result.json",
             "table3@smoke/a\udcff/seed1/result.json", "table3@smoke/a\nb/seed1/result.json",
             "table3@smoke/base/seed1/result.json\n", "C:\\a@smoke/base/seed1/result.json"],
)  # fmt: skip
def test_an_archive_of_anything_else_is_refused(tmp_path, name):
    with tarfile.open(tmp_path / "results-1.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 2
        archive.addfile(member, io.BytesIO(b"{}"))
    with pytest.raises(UserError, match="no run's result"):
        archives.unpack(tmp_path, tmp_path / "runs")
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("variant", ["50%", "drop(0)", "größe/h=1", "base+d_k=32,num_heads=2", ".5", "a&b;c"])
def test_an_archive_has_whatever_a_variant_may_be_called(tmp_path, variant):
    (tmp_path / "out").mkdir()
    fabricated.put(tmp_path / "runs", "table3/base@smoke", 1, folder=variant)
    archives.Packer(tmp_path / "runs", tmp_path / "out").pack()
    assert archives.unpack(tmp_path / "out", tmp_path / "there") == 1
    assert (tmp_path / "there" / "table3@smoke" / variant / "seed1" / "result.json").exists()


def test_a_link_in_an_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "results-1.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("table3@smoke/base/seed1/result.json")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(UserError, match="no run's result"):
        archives.unpack(tmp_path, tmp_path / "runs")


def test_a_cut_archive_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    put(tmp_path / "runs")
    archives.Packer(tmp_path / "runs", tmp_path / "out").pack()
    path = tmp_path / "out" / "results-1.tar.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="fetch it again"):
        archives.unpack(tmp_path / "out", tmp_path / "there")


# What came back


def back(folder):
    """Packs what was put into folder/runs, and takes it."""
    (folder / "out").mkdir(exist_ok=True)
    archives.Packer(folder / "runs", folder / "out").pack()
    return take.take(folder / "out", folder / "into")


def test_a_sweep_that_nobody_knows_keeps_no_other_back(tmp_path):
    put(tmp_path / "runs")
    shutil.copytree(tmp_path / "runs/table3@smoke", tmp_path / "runs/unheard@smoke")
    new, refused = back(tmp_path)
    assert new == 1
    assert ["unheard" in line for line in refused] == [True]
    assert not (tmp_path / "into/unheard@smoke").exists()


def test_sweeps_of_ones_own_are_imported(machine, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        "from experiments.registry import Sweep, Variant, register\n"
        "register(Sweep('brought', {}, (Variant('base'), Variant('x', {'model.norm': 'pre'})), 'Mine'))\n"
    )
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(registry, "_SWEEPS", dict(registry._SWEEPS))
    bundled = []
    monkeypatch.setattr(
        bundle, "bundle", lambda folder, python, sweeps: bundled.extend(map(registry.parse_sweep, sweeps)) or {}
    )
    bundle.main([f"--import={tmp_path / 'mine.py'}", "--sweep=brought@smoke:1", f"--folder={tmp_path / 'b'}"])
    assert [sweep.name for sweep, *_ in bundled] == ["brought"]
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(registry, "_SWEEPS", {k: v for k, v in registry._SWEEPS.items() if k != "brought"})
    with pytest.raises(SystemExit):
        take.main([f"--import={tmp_path / 'mine.py'}", str(tmp_path)])
    assert os.environ[plugins.VARIABLE] == str(tmp_path / "mine.py")
    assert machine(f"--import={tmp_path / 'mine.py'}") == 0  # and hands nothing of it on: its processes have it
    monkeypatch.setattr(registry, "_SWEEPS", {k: v for k, v in registry._SWEEPS.items() if k != "brought"})
    monkeypatch.delitem(sys.modules, f"tx_import_{tmp_path / 'mine.py'}")  # as in a process of its own
    seen = []
    monkeypatch.setattr(preparation, "prepare", seen.extend)
    session._prepare([wanted.Wanted.parse("brought@smoke:1")], tmp_path / "runs", [])
    assert [run.name for run in seen] == ["brought/base@smoke", "brought/x@smoke"]


def test_a_result_is_put_in_its_place_with_the_code_that_made_it(tmp_path):
    put(tmp_path / "runs", "A/h=1", 2, code="")
    assert back(tmp_path) == (1, [])
    (path,) = (tmp_path / "into").rglob("*.*")
    assert path == tmp_path / "into" / "table3@smoke" / "A" / "h=1" / "seed2" / "result.json"
    made = json.loads((tmp_path / "runs" / path.relative_to(tmp_path / "into")).read_text())
    assert json.loads(path.read_text()) == made | {"code": provenance.revision()}
    assert back(tmp_path) == (0, [])


def test_a_result_that_is_no_longer_what_its_name_says_is_refused(tmp_path):
    put(tmp_path / "runs", "base", 1, overrides={"train.steps": 20})
    put(tmp_path / "runs", "base", 2, numerics="0" * 12)
    put(tmp_path / "runs", "base", 3, dev="none")
    put(tmp_path / "runs", "base", 4)
    new, refused = back(tmp_path)
    assert new == 1
    assert len(refused) == 3
    assert "train.steps was 20" in refused[0]
    assert "other code made it" in refused[1]
    assert "damaged" in refused[2]
    assert [path.parent.name for path in (tmp_path / "into").rglob("result.json")] == ["seed4"]
    assert take.take(tmp_path / "out", tmp_path / "into", any_code=True)[0] == 1


def test_another_result_of_the_same_is_kept_and_one_of_other_code_is_not(tmp_path):
    put(tmp_path / "runs", "base", 1, bleu=31.0)
    put(tmp_path / "runs", "base", 2, bleu=32.0)
    put(tmp_path / "into", "base", 1, bleu=11.0)
    put(tmp_path / "into", "base", 2, bleu=12.0, numerics="0" * 12)
    new, refused = back(tmp_path)
    assert new == 1
    assert "another result" in refused[0]
    there = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "into").rglob("result.json")}
    assert {seed: result["tests"]["test"]["bleu"] for seed, result in there.items()} == {"seed1": 11.0, "seed2": 32.0}


def test_what_cannot_be_read_is_not_overwritten_and_one_that_diverged_is_not_taken_twice(tmp_path):
    put(tmp_path / "runs", "base", 1)
    put(tmp_path / "runs", "base", 2, ppl=float("nan"))
    there = put(tmp_path / "into", "base", 1, format=2) / "result.json"
    before = there.read_text()
    for new in (1, 0):
        assert back(tmp_path)[0] == new
        (refused,) = back(tmp_path)[1]
        assert f"{there.parent}: result.json is damaged (no result of this version: format is 2" in refused
    assert there.read_text() == before


def test_of_a_sweep_whose_results_are_all_refused_nothing_is_put(tmp_path):
    put(tmp_path / "runs", "base", 1, numerics="0" * 12)
    asked = tuning.Asked("base", {}, {"optim.lr_factor": list(RATES)}, (2, 3))
    (tmp_path / "out").mkdir()
    tuning.record(tmp_path / "runs" / "table3@smoke", [(asked, dict.fromkeys(asked.points))])
    archives.copy_tunings(tmp_path / "runs", tmp_path / "out")
    new, (refused,) = back(tmp_path)
    assert new == 0
    assert "other code made it" in refused
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"no JSON", b"{}"])
def test_what_rows_were_tuned_by_is_named_where_it_is_damaged(tmp_path, damage):
    put(tmp_path / "runs")
    (tmp_path / "out").mkdir()
    copy = tmp_path / "out" / "tuning-table3@smoke.json"
    copy.write_bytes(damage)
    with pytest.raises(UserError, match=f"{copy} is damaged; fetch it again"):
        back(tmp_path)
    archives.copy_tunings(tmp_path / "runs", tmp_path / "out")  # there is none: it stays
    asked = tuning.Asked("base", {}, {"optim.lr_factor": list(RATES)}, (2, 3))
    tuning.record(tmp_path / "runs" / "table3@smoke", [(asked, dict.fromkeys(asked.points))])
    archives.copy_tunings(tmp_path / "runs", tmp_path / "out")
    assert copy.read_bytes() == (tmp_path / "runs" / "table3@smoke" / tuning.FILE).read_bytes()
    assert back(tmp_path)[0] == 1


def test_a_folder_without_archives_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no results"):
        take.take(tmp_path, tmp_path / "into")


# The bundle


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def test_text_comes_out_of_the_bundle_as_it_went_in(tmp_path, monkeypatch):
    monkeypatch.setenv("TX_DATA_DIR", str(tmp_path / "data"))
    # Every third sentence twice, so that what is held out drops some; a separator that is no end of line.
    english = [f"Sentence number {i - i % 3 // 2}\u2028." for i in range(600)]
    write_lines(tmp_path / "data" / "tatoeba" / "all.en-de.en.gz", english)
    write_lines(tmp_path / "data" / "tatoeba" / "all.en-de.de.gz", [f"Satz {i}" for i in range(600)])
    for split in ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco"):
        for language in ("en", "de"):
            write_lines(tmp_path / "data" / "multi30k" / f"{split}.{language}.gz", [f"{split} {i}" for i in range(9)])
    for name, source, target in (("tatoeba", "en", "de"), ("multi30k", "de", "en")):
        pairs = text_files.read(name, source, target, "")
        bundle.put_text(name, source, target, tmp_path / "bundle")
        assert text_files.read(name, source, target, str(tmp_path / "bundle")) == pairs
    with pytest.raises(UserError, match="numbers"):
        bundle.put_text("numbers", "en", "de", tmp_path / "bundle")


def test_too_large_a_bundle_is_an_error_and_leaves_the_last_one(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "put_wheels", lambda folder, python: (folder / "one.whl").write_bytes(b"0" * 900))
    monkeypatch.setattr(bundle, "put_text", lambda *arguments: arguments[-1].mkdir(exist_ok=True))
    assert bundle.bundle(tmp_path / "bundle", "3.12", ["table3@multi30k"])["wheels"] == 900
    monkeypatch.setattr(bundle, "LIMIT", 899)
    with pytest.raises(UserError, match="more than"):
        bundle.bundle(tmp_path / "bundle", "3.12", ["table3@multi30k"])
    assert [path.name for path in (tmp_path / "bundle" / "wheels").iterdir()] == ["one.whl"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["docs", "docs/.", "link", "file", "docs/thesis.txt/bundle"])
def test_what_is_no_bundle_is_not_deleted(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.txt").write_text("four years")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("docs")
    monkeypatch.setattr(bundle, "put_wheels", lambda folder, python: None)
    monkeypatch.setattr(bundle, "put_text", lambda *arguments: None)
    there = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path / "docs")
    for folder in {f"{tmp_path}/{name}", "." if name.endswith(".") else f"../{name}"}:
        with pytest.raises(SystemExit) as ended:
            bundle.main(["--sweep=table3@multi30k:1", f"--folder={folder}"])
        assert ended.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == there


def test_a_bundle_may_be_where_no_folder_is_yet_and_where_a_link_leads(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "put_wheels", lambda folder, python: (folder / "one.whl").touch())
    monkeypatch.setattr(bundle, "put_text", lambda *arguments: None)
    (tmp_path / "link").symlink_to("a/b/bundle")
    for name in ("a/b/bundle", "link"):
        bundle.bundle(tmp_path / name, "3.12", ["table3@multi30k"])
        assert (tmp_path / "link" / "wheels" / "one.whl").exists()
    assert (tmp_path / "link").is_symlink()


def test_every_wheel_has_a_version_of_its_own():
    pinned = {line.partition("==")[0] for line in (bundle.ROOT / "constraints.txt").read_text().splitlines()}
    assert set(bundle.WHEELS) <= pinned
    assert set(bundle.SOURCES) <= set(bundle.WHEELS)
