"""Launching: which runs, where, what is skipped, refused, tried again; with a fake trainer."""

import argparse
import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types

import fabricated
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from experiments import points, registry
from launch import display, grouping, local, plan, pool, preparation, queue, resources, slurm, worker
from launch.plan import selection
from tx import components
from tx.data import cache, corpora
from tx.errors import UserError
from tx.fields import Field
from tx.files import to_json
from tx.model import flops
from tx.model.norms import norms
from tx.runs import lease, metrics_log, state
from tx.runs.lease import HELD_STATUS
from tx.runs.run_config import handed_over
from tx.runs.run_dir import RunDir
from tx.runtime import backend
from tx.runtime.clock import running_time
from tx.runtime.signals import STATUS

# It takes its runs as tx.train does, so a launcher that handed over the wrong configuration would not find its own
# runs done. FAKE_LOG gets a line when a run starts and one when it ends.
TRAINER = textwrap.dedent(
    """
    import fnmatch, json, os, sys, time
    from tx.files import to_json
    from tx.runs.run_config import handed_over
    from tx.runs.run_dir import RunDir

    def note(event):
        keys = ("JAX_COMPILATION_CACHE_DIR",)
        record = {"event": event, "name": config.name, "seed": config.train.seed, "pid": os.getpid()}
        record |= {key: os.environ[key] for key in keys}
        record["gpus"] = os.environ.get("CUDA_VISIBLE_DEVICES")
        record["cores"] = sorted(os.sched_getaffinity(0))
        with open(os.environ["FAKE_LOG"], "a") as log:
            log.write(json.dumps(record) + "\\n")

    failed = False
    for folder in sys.argv[1:]:
        config, run, _ = handed_over(RunDir(folder))
        run.config.write_text(to_json({"config": config.to_dict()}))
        note("start")
        print("fake training of", config.name, flush=True)
        time.sleep(float(os.environ.get("FAKE_SLEEP", 0)))
        fails = fnmatch.fnmatchcase(config.name, os.environ.get("FAKE_FAIL", ""))
        if fails and os.environ.get("FAKE_KILL"):
            os.kill(os.getpid(), 9)
        if fails:
            failed = True
            continue
        if not os.environ.get("FAKE_FORGET"):
            run.result.write_text(to_json({"config": config.to_dict()}))
        note("end")
    if failed:
        sys.exit("error: no loss today")
    """
)


class Launcher:
    """Calls launch.local's main in this process, and remembers what it asked for."""

    def __init__(self, folder):
        self.script, self.log, self.workdir = folder / "fake.py", folder / "log.jsonl", folder / "runs"
        self.script.write_text(TRAINER)
        self.prepared, self.reported = [], []

    def __call__(self, *arguments, retries=0):
        return local.main(
            [f"--workdir={self.workdir}", f"--retries={retries}", *arguments],
            command=lambda runs: [sys.executable, str(self.script), *plan.arguments(runs)],
            prepare=lambda runs: self.prepared.append([run.label for run in runs]),
            report=self.reported.append,
        )

    def events(self, kind="start"):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [e for e in map(json.loads, lines) if e["event"] == kind]

    def ran(self):
        return sorted((e["name"], e["seed"]) for e in self.events())


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "POLL", 0.01)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    made = Launcher(tmp_path)
    monkeypatch.setenv("FAKE_LOG", str(made.log))
    return made


def planned(*arguments):
    parser = argparse.ArgumentParser()
    selection.add_arguments(parser)
    return plan.make(parser.parse_intermixed_args(arguments))


def fails(call, capsys, *wanted):
    """Runs something that must end with status 2 and one line holding all of `wanted`."""
    with pytest.raises(SystemExit) as ended:
        call()
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    for text in wanted:
        assert text in message


# Which runs


def test_a_sweep_is_every_variant_in_every_seed():
    runs = planned("table3@smoke", "--seeds=2", "--workdir=w")
    variants = [v.name for v in registry.variants("table3")]
    assert [(r.name, r.seed) for r in runs] == [(f"table3/{v}@smoke", s) for v in variants for s in (1, 2)]
    assert [r.folder.path for r in runs] == [
        pathlib.Path.cwd() / "w" / "table3@smoke" / v / f"seed{s}" for v in variants for s in (1, 2)
    ]
    assert all(r.config.train.seed == r.seed and r.config.name == r.name for r in runs)
    assert runs[0].params == flops.parameter_count(registry.get_config("table3/base@smoke").model)


def test_selectors_add_up_without_doubles_and_only_narrows_them():
    runs = planned("table3/A/*@smoke", "--only=A/h=1", "--only=base", "table3/base@smoke", "table3/A/h=1@smoke")
    assert [r.name for r in runs] == ["table3/A/h=1@smoke", "table3/base@smoke"]
    names = [r.name for r in planned("table3@smoke", "--only=D/eps*,big", "--only=base")]
    assert names == [f"table3/{v}@smoke" for v in ("base", "D/eps_ls=0.0", "D/eps_ls=0.2", "big")]


def test_set_reaches_every_run_and_leaves_its_name():
    plain, changed = planned("table3@smoke"), planned("table3@smoke", "--set", "train.steps=7")
    assert [r.name for r in plain] == [r.name for r in changed]
    assert {r.config.train.steps for r in changed} == {7}


def test_a_grid_is_a_product_of_values_taken_as_they_are():
    grid = ("--grid", "model.num_heads=1,2,4", "--grid", "model.dropout=0,0.1")
    runs = planned("table3/base@smoke", "table3/C/N=2@smoke", *grid)
    points = [(r.config.model.num_heads, r.config.model.dropout) for r in runs]
    product = [(h, p) for h in (1, 2, 4) for p in (0.0, 0.1)]  # axes in the order given, names sorted
    assert points == [(8, 0.1), *product, *product]  # base first
    assert runs[0].name == "table3/base@smoke"
    assert runs[1].name == "table3/base+dropout=0,num_heads=1@smoke"
    assert runs[-1].name == "table3/C/N=2+dropout=0.1,num_heads=4@smoke"
    assert runs[0].config.model.d_model == 64  # the scale's, as the variant's own fields are
    assert planned("table3/base@smoke", "--grid", "model.d_model=96")[-1].config.model.d_model == 96


def test_a_field_of_a_component_is_set_where_it_is_chosen(capsys):
    grid = ("--grid", "optim.optimizer=adam,lion", "--grid", "optim.lion.b1=0.8,0.9")
    runs = planned("table3/base@smoke", *grid)
    names = ["optimizer=adam", "lion.b1=0.8,optimizer=lion", "lion.b1=0.9,optimizer=lion"]
    assert sorted(r.name for r in runs) == sorted(
        ["table3/base@smoke", *(f"table3/base+{name}@smoke" for name in names)]
    )
    assert sorted(r.config.optim.lion.b1 for r in runs if r.config.optim.optimizer == "lion") == [0.8, 0.9]
    assert local.main(["table3/base@smoke", "--dry_run", *grid]) == 0
    note = "note: --grid optim.lion.b1 is left out of base+optimizer=adam: it belongs to optim.optimizer=lion"
    assert note in capsys.readouterr().out.replace("\n", " ")
    runs = planned("table3/base@smoke", "--set", "optim.optimizer=lion", "--set", "optim.lion.b1=0.8")
    assert [(r.name, r.config.optim.lion.b1) for r in runs] == [("table3/base@smoke", 0.8)]
    message = ("optim.lion.b1 belongs to optim.optimizer=lion; this run has adam",)
    fails(lambda: local.main(["table3/base@smoke", "--dry_run", "--set=optim.lion.b1=0.8"]), capsys, *message)
    fails(lambda: local.main(["table3/base@smoke", "--dry_run", "--tune=optim.lion.b1=0.8"]), capsys, *message)


def test_a_field_that_means_nothing_to_a_component_is_left_out(capsys):
    grid = ("--grid", "model.mixer=attention,local", "--grid", "model.neighbourhood=2,4")
    runs = planned("table3/base@smoke", *grid)
    names = ["mixer=attention", "mixer=local,neighbourhood=2", "mixer=local,neighbourhood=4"]
    assert [r.name for r in runs] == ["table3/base@smoke", *(f"table3/base+{name}@smoke" for name in names)]
    assert local.main(["table3/base@smoke", "--dry_run", *grid]) == 0
    note = (
        "note: --grid model.neighbourhood is left out of base+mixer=attention: it means something to model.mixer=local"
    )
    assert note in capsys.readouterr().out.replace("\n", " ")
    assert [r.name for r in planned("table3/base@smoke", *grid[2:])] == ["table3/base@smoke"]
    assert [r.name for r in planned("table3/base@smoke", *grid[2:], "--match=params")] == ["table3/base@smoke"]
    message = "--tune=model.neighbourhood: it means something to model.mixer=local; base has attention"
    fails(lambda: local.main(["table3/base@smoke", "--dry_run", "--tune=model.neighbourhood=2,4"]), capsys, message)
    tuned = [*grid[:1], "model.mixer=local", "--only=base+mixer=local", "--tune=model.neighbourhood=2,4", "--seeds=2"]
    assert local.main(["table3/base@smoke", "--dry_run", *tuned]) == 0


def test_what_the_norm_is_means_nothing_where_there_is_none():
    class Scaled(norms["rms"]):
        size: float = 0.5

    norms.register("scaled_rms", size=Field(0.5, "m"))(Scaled)
    try:
        grid = ["--grid=model.norm=pre,none", "--grid=model.normalization=layer,rms,scaled_rms"]
        grid.append("--grid=model.scaled_rms.size=0.25,1.0")
        names = [
            run.name.removeprefix("table3/base").removesuffix("@smoke") for run in planned("table3/base@smoke", *grid)
        ]
        pre = [
            f"+norm=pre,normalization={of}"
            for of in ("layer", "rms", "scaled_rms,scaled_rms.size=0.25", "scaled_rms,scaled_rms.size=1")
        ]
        assert names == ["", *pre, "+norm=none"]
    finally:
        del norms._components["scaled_rms"]
        components.withdraw("model.normalization", "scaled_rms")


def test_a_field_whose_last_part_is_not_unique_is_named_in_full(monkeypatch):
    assert points.name("base", {"model.d_k": 8}) == "base+d_k=8"
    monkeypatch.setattr(points, "FIELDS", {**points.FIELDS, "other.d_k": None})
    assert points.name("base", {"model.d_k": 8}) == "base+model.d_k=8"


FIELDS = {
    "model.num_heads": st.integers(1, 64),
    "model.dropout": st.floats(0, 0.99),
    "model.projection_bias": st.sampled_from(["true", "false"]),
    "model.positions": st.sampled_from(["sinusoidal", "learned", "none"]),
    "optim.epsilon": st.floats(1e-12, 1e-3),
}


@given(st.data())
@settings(max_examples=12)
def test_a_point_has_one_folder_however_it_is_asked_for(data):
    fields = data.draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3, unique=True))
    grid = {f: data.draw(st.lists(FIELDS[f], min_size=1, max_size=3, unique=True)) for f in fields}

    def folders(order):
        flags = [f"--grid={f}={','.join(map(str, grid[f]))}" for f in order]
        return sorted(str(r.folder.path) for r in planned("table3/base@smoke", "--workdir=/w", "--only=base+*", *flags))

    first, again = folders(fields), folders(data.draw(st.permutations(fields)))
    assert first == again
    count = 1
    for values in grid.values():
        count *= len(values)
    assert len(set(first)) == count
    safe = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,+=-")
    assert all(set(path.removeprefix("/w/table3@smoke/").removesuffix("/seed1")) <= safe for path in first)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["table3/A/h=3@smoke"], ["A/h=3", "nearest"]),
        (["table4@smoke"], ["table4", "table3"]),
        (["--only=Z/*"], ["Z/*", "base"]),
        (["--only=base,A/h=3,E"], ["--only=A/h=3", "A/h=4"]),
        (["--seeds=0"], ["--seeds"]),
        (["--jobs=0"], ["--jobs"]),
        (["--retries=-1"], ["--retries"]),
        (["--retr=2"], ["unrecognized arguments: --retr=2"]),
        (["--stat=runs"], ["unrecognized arguments: --stat=runs"]),
        (["--set", "train.steps"], ["FIELD=VALUE"]),
        (["--set", "train.step=5"], ["train.step", "train.steps"]),
        (["--set", "train.steps=many"], ["train.steps", "whole number"]),
        (["--set", "train.steps=5", "--set", "train.steps=6"], ["train.steps", "twice"]),
        (["--set", "train.seed=5"], ["--seeds"]),
        (["--set", "model.d_k=4", "--grid", "model.d_k=4,8"], ["model.d_k", "--grid"]),
        (["--grid", "model.num_heads=1,0"], ["model.num_heads", "positive"]),
        (["--grid", "model.num_heads=1,,2"], ["model.num_heads", "whole number"]),
        (["--grid", "data.dir=a/b,a-b"], ["share"]),
    ],
)
def test_what_the_caller_has_to_mend_is_one_line_and_leaves_nothing(launcher, capsys, arguments, wanted):
    selector = [] if "@" in arguments[0] else ["table3@smoke"]
    fails(lambda: launcher(*selector, *arguments), capsys, *wanted)
    assert not launcher.workdir.exists()
    assert not launcher.prepared


# Running them


def test_runs_once_then_skips_what_is_done(launcher, capsys):
    assert launcher("table3/A/*@smoke", "--seeds=2", "--only=A/h=1", "--jobs=1") == 0
    assert launcher.ran() == [("table3/A/h=1@smoke", 1), ("table3/A/h=1@smoke", 2)]
    assert launcher("table3/A/*@smoke", "--seeds=3", "--only=A/h=1", "--jobs=1") == 0
    assert launcher.ran() == [("table3/A/h=1@smoke", k) for k in (1, 2, 3)]
    assert [len(labels) for labels in launcher.prepared] == [2, 1]
    assert launcher("table3/A/h=1@smoke") == 0
    assert len(launcher.prepared) == 2  # nothing to prepare where nothing is to run
    assert launcher.reported == [[launcher.workdir / "table3@smoke"]] * 3
    log = launcher.workdir / "table3@smoke" / "A" / "h=1" / "seed1" / "log.txt"
    assert "fake training of table3/A/h=1@smoke" in log.read_text()
    assert "0 to run, 1 done before" in capsys.readouterr().out


def test_grid_runs_find_themselves_done(launcher):
    arguments = (
        "table3/base@smoke",
        "--grid",
        "model.dropout=0,0.25",
        "--grid=model.projection_bias=true,false",
    )
    assert launcher(*arguments, "--set", "optim.epsilon=1e-7") == 0
    assert len(launcher.ran()) == 5  # the base once, which differences are from
    assert launcher(*arguments[:2], arguments[2], arguments[3], "--set=optim.epsilon=0.0000001") == 0
    assert len(launcher.ran()) == 5


def test_another_configuration_in_the_same_place_is_refused_before_anything_starts(launcher, capsys):
    assert launcher("table3/base@smoke") == 0
    capsys.readouterr()
    shorter = ("table3/base@smoke", "table3/E@smoke", "--set=train.steps=5")
    difference = f"train.steps {registry.get_config('table3/base@smoke').train.steps} -> 5"
    fails(lambda: launcher(*shorter), capsys, difference, "--workdir", "delete")
    assert launcher.ran() == [("table3/base@smoke", 1)]
    assert len(launcher.prepared) == 1
    # A run that was begun counts as much as one that is done.
    (launcher.workdir / "table3@smoke" / "base" / "seed1" / "result.json").unlink()
    fails(lambda: launcher(*shorter), capsys, difference)
    assert launcher("table3/base@smoke") == 0
    assert len(launcher.ran()) == 2


def test_what_is_done_on_other_devices_is_done(launcher):
    assert launcher("table3/base@smoke") == 0
    assert launcher("table3/base@smoke", "--set=parallel.devices=2") == 0
    assert len(launcher.ran()) == 1


def test_a_configuration_of_other_fields_is_refused_too(launcher, capsys):
    assert launcher("table3/base@smoke") == 0
    capsys.readouterr()
    result = launcher.workdir / "table3@smoke" / "base" / "seed1" / "result.json"
    content = json.loads(result.read_text())
    content["config"]["model"]["gone"] = content["config"]["model"].pop("norm")
    result.write_text(to_json(content))
    fails(
        lambda: launcher("table3/base@smoke"),
        capsys,
        "model.gone pre -> (absent)",
    )


def test_others_go_on_when_one_fails_and_a_relaunch_tries_it_again(launcher, capsys, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "table3/A/h=4@*")
    assert launcher("table3/A/*@smoke", "--jobs=2") == 1
    assert len(launcher.ran()) == 4
    assert len(launcher.events("end")) == 3
    out = capsys.readouterr().out
    assert "3 done, 1 failed" in out
    folder = RunDir(launcher.workdir / "table3@smoke" / "A" / "h=4" / "seed1")
    error = folder.read("error")
    assert (error["name"], error["seed"], error["error"]) == ("table3/A/h=4@smoke", 1, "no loss today")
    assert "fake training" in error["traceback"]
    assert len(launcher.reported) == 1
    monkeypatch.delenv("FAKE_FAIL")
    assert launcher("table3/A/*@smoke") == 0
    assert launcher.ran().count(("table3/A/h=4@smoke", 1)) == 2
    assert len(launcher.ran()) == 5
    assert not folder.error.exists()
    assert folder.result.exists()


def test_a_failure_is_tried_again_so_many_times(launcher, capsys, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "table3/A/h=4@*")
    assert launcher("table3/A/*@smoke", "--jobs=1", retries=2) == 1
    assert [name for name, _ in launcher.ran()].count("table3/A/h=4@smoke") == 3
    assert len(launcher.ran()) == 6
    out = capsys.readouterr().out
    assert out.count("again  table3/A/h=4@smoke seed 1: no loss today (see ") == 2
    assert "3 done, 1 failed, 0 done before" in out
    assert RunDir(launcher.workdir / "table3@smoke" / "A" / "h=4" / "seed1").read("error")["error"] == "no loss today"


def test_what_fails_once_is_done_in_the_end(launcher, capsys):
    launcher.script.write_text(
        TRAINER.replace(
            "failed = False", 'import tx.runs.run_dir\nmark = os.environ["FAKE_LOG"] + ".mark"\nfailed = False'
        ).replace("fails = ", "first = not os.path.exists(mark)\n    open(mark, 'w')\n    fails = first or ")
    )
    assert launcher("table3/base@smoke", retries=1) == 0
    assert len(launcher.ran()) == 2
    assert "1 done, 0 failed" in capsys.readouterr().out
    assert not RunDir(launcher.workdir / "table3@smoke" / "base" / "seed1").error.exists()


def test_an_interrupted_run_is_no_failure_and_not_tried_again(launcher, capsys, monkeypatch):
    launcher.script.write_text(TRAINER.replace('sys.exit("error: no loss today")', f"sys.exit({STATUS})"))
    monkeypatch.setenv("FAKE_FAIL", "*")
    assert launcher("table3/base@smoke", retries=3) == 1
    assert len(launcher.ran()) == 1
    assert "interrupted: the same command goes on from there" in capsys.readouterr().out
    folder = RunDir(launcher.workdir / "table3@smoke" / "base" / "seed1")
    assert not folder.error.exists()
    assert state.of(folder, lambda _: "").name == "interrupted"


def test_the_largest_run_is_tried_before_anything_starts(launcher, capsys, monkeypatch):
    monkeypatch.setattr(preparation, "TRIED", 0)
    rehearsing = 'if sys.argv[-1] == "--rehearse":\n    sys.exit("error: out of memory")\n'
    launcher.script.write_text(TRAINER.replace("failed = False", rehearsing + "failed = False"))
    fails(
        lambda: launcher("table3/base@smoke", "table3/big@smoke"),
        capsys,
        "table3/big@smoke seed 1, the largest, cannot run here: out of memory",
    )
    assert launcher.ran() == []
    launcher.script.write_text(
        TRAINER.replace("failed = False", 'if sys.argv[-1] == "--rehearse": sys.exit()\nfailed = False')
    )
    assert launcher("table3/base@smoke") == 0
    assert len(launcher.ran()) == 1


def test_what_only_translates_is_not_tried(launcher, monkeypatch):
    """Where all that is left of a sweep takes the parameters of runs that are done."""
    only = "--only=beam=4/alpha=0.6/average=1,beam=1/alpha=0.6/average=1"
    assert launcher("decoding@smoke", only) == 0
    (launcher.workdir / "decoding@smoke" / "beam=1" / "alpha=0.6" / "average=1" / "seed1" / "result.json").unlink()
    monkeypatch.setattr(preparation, "TRIED", 0)
    rehearsing = 'if sys.argv[-1] == "--rehearse":\n    sys.exit("error: out of memory")\n'
    launcher.script.write_text(TRAINER.replace("failed = False", rehearsing + "failed = False"))
    assert launcher("decoding@smoke", only) == 0
    assert [name for name, _ in launcher.ran()].count("decoding/beam=1/alpha=0.6/average=1@smoke") == 2


def test_nothing_is_tried_before_where_that_is_not_wanted(launcher, monkeypatch):
    monkeypatch.setattr(preparation, "TRIED", 0)
    rehearsing = 'if sys.argv[-1] == "--rehearse":\n    sys.exit("error: out of memory")\n'
    launcher.script.write_text(TRAINER.replace("failed = False", rehearsing + "failed = False"))
    assert launcher("table3/base@smoke", "--no_rehearsal") == 0
    assert launcher.ran() == [("table3/base@smoke", 1)]


# Beside other launches


def hold(folder):
    """A process that holds a run's folder until its input ends."""
    code = """
        import sys, pathlib
        from tx.runs.lease import Lease
        with Lease(pathlib.Path(sys.argv[1])) as held:
            held.set_status("training after step 5")
            print("in", flush=True)
            sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "in\n"
    return process


@pytest.fixture
def held(launcher):
    """A run of `launcher` that another process holds."""
    folder = RunDir(launcher.workdir / "table3@smoke" / "base" / "seed1")
    folder.path.mkdir(parents=True)
    process = hold(folder.path)
    yield folder, process
    process.kill()
    process.communicate()


def test_a_run_that_another_launch_makes_is_waited_for(launcher, held, capsys, monkeypatch):
    folder, process = held
    config = registry.get_config("table3/base@smoke", {"train.seed": 1})

    def finish():
        folder.result.write_text(to_json({"config": config.to_dict()}))
        process.communicate()

    looks_then(monkeypatch, finish)
    assert launcher("table3/base@smoke", "table3/E@smoke", "--jobs=2") == 0
    assert launcher.ran() == [("table3/E@smoke", 1)]
    out = capsys.readouterr().out
    assert out.count("waits  table3/base@smoke seed 1: process ") == 1
    assert "(training after step 5)" in out
    assert "table3/base@smoke seed 1 by another launch" in out
    assert "2 done, 0 failed" in out


def test_a_dead_launchs_run_is_taken_over(launcher, held, capsys, monkeypatch):
    _, process = held

    def die():
        process.kill()
        process.communicate()

    looks_then(monkeypatch, die)
    assert launcher("table3/base@smoke") == 0
    assert launcher.ran() == [("table3/base@smoke", 1)]
    assert "waits  table3/base@smoke" in capsys.readouterr().out


def looks_then(monkeypatch, act):
    """Does something once, after the launcher has found a run held."""
    monkeypatch.setattr(queue, "PATIENCE", 0.02)
    find, actions = lease.holder, [act]

    def holder(path):
        found = find(path)
        if found and actions:
            actions.pop()()
        return found

    monkeypatch.setattr(queue, "lease", types.SimpleNamespace(holder=holder))


def test_a_process_that_finds_its_run_held_did_nothing(launcher, capsys):
    """It lost a race: the run waits, and is no failure."""
    once = textwrap.dedent(
        f"""
        mark = os.environ["FAKE_LOG"] + ".mark"
        if not os.path.exists(mark):
            open(mark, "w")
            sys.exit({HELD_STATUS})
        """
    )
    launcher.script.write_text(TRAINER.replace("failed = False", once + "failed = False"))
    assert launcher("table3/base@smoke") == 0
    assert len(launcher.ran()) == 1
    assert "1 done, 0 failed" in capsys.readouterr().out


# States


def test_status_tells_all_states(launcher, capsys):
    rows = ("A/h=1", "A/h=4", "A/h=16", "A/h=32", "B/d_k=16", "D/P_drop=0.0")
    assert launcher(*(f"table3/{row}@smoke" for row in (*rows, "big"))) == 0
    shutil.rmtree(launcher.workdir / "table3@smoke" / "big")
    fabricated.put(launcher.workdir, "table3/base@smoke", 1)
    fabricated.put(launcher.workdir, "table3/E@smoke", 1, numerics="0123456789ab")
    folders = {row: RunDir(launcher.workdir / "table3@smoke" / row / "seed1") for row in rows}
    for row in rows[:-1]:
        folders[row].result.unlink()
    folders["A/h=1"].error.write_text(to_json({"error": "no \x1b[31mloss today"}))
    folders["A/h=4"].metrics.write_text('{"step": 1200, "loss": 3.0, "timing": {}}\n')
    other = folders["A/h=16"].read("config")
    folders["A/h=16"].config.write_text(to_json(other | {"numerics": "0123456789ab"}))
    other = folders["A/h=32"].read("config")
    other["config"]["train"]["steps"] = 5
    folders["A/h=32"].config.write_text(to_json(other))
    process = hold(folders["B/d_k=16"].path)
    capsys.readouterr()
    assert local.main([f"--status={launcher.workdir}"]) == 0
    process.communicate()
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith(" table3/")}
    assert len(lines) == 2 + len((*rows, "big"))  # what nobody asked for is not pending

    def told(row):
        return " ".join(lines[f"table3/{row}@smoke"].split()[1:])

    assert told("base") == "1 done"
    assert told("D/P_drop=0.0").startswith("1 failed result.json is damaged")  # the fake trainer's has no numbers
    assert told("big") == "1 pending"
    assert told("A/h=1") == r"1 failed no \x1b[31mloss today"
    assert told("A/h=4") == "1 interrupted 1,200"
    assert told("A/h=16").startswith("1 stale other code made it: the fingerprint was 0123456789ab, is now ")
    assert told("A/h=32") == "1 stale train.steps was 5, is now 750"
    assert told("B/d_k=16").startswith("1 running process ")
    assert told("E").startswith("1 stale other code made it")
    assert out.splitlines()[-1] == "1 pending, 1 running, 1 done, 2 failed, 1 interrupted, 3 stale"


def test_status_needs_a_work_folder(capsys, tmp_path):
    fails(lambda: local.main([f"--status={tmp_path / 'none'}"]), capsys, "no folder")
    fails(lambda: local.main([f"--status={tmp_path}", "B", "--bogus"]), capsys, "a folder", "leave B --bogus out")


def test_what_other_code_has_done_stays_until_it_is_to_be_made_anew(launcher, capsys):
    assert launcher("table3/base@smoke") == 0
    folder = RunDir(launcher.workdir / "table3@smoke" / "base" / "seed1")
    other = folder.read("result") | {"numerics": "../../0123"}
    folder.result.write_text(to_json(other))
    capsys.readouterr()
    assert launcher("table3/base@smoke") == 0
    assert len(launcher.ran()) == 1
    out = capsys.readouterr().out
    assert "0 to run, 0 done before, 1 stale\n" in out
    (line,) = [line for line in out.splitlines() if line.startswith("stale")]
    why = "other code made it: the fingerprint was ../../0123, is now "
    assert line.startswith(f"stale  table3/base@smoke seed 1: {why}")
    assert line.endswith("; --rerun_stale makes it anew")
    assert launcher("table3/base@smoke", "--rerun_stale", "--dry_run") == 0
    assert folder.result.exists()
    assert launcher("table3/base@smoke", "--rerun_stale") == 0
    assert len(launcher.ran()) == 2
    assert folder.read("result") != other
    assert json.loads((folder.path / "stale" / "0123" / "result.json").read_text()) == other


def test_many_that_other_code_has_done_are_named_in_one_line(launcher, capsys):
    count = preparation.NAMED + 1
    for seed in range(1, count + 1):
        fabricated.put(launcher.workdir, "table3/base@smoke", seed, numerics="0123456789ab")
    fabricated.put(launcher.workdir, "table3/E@smoke", 1, numerics="ba9876543210")
    seeds = f"--seeds={count}"
    assert launcher("table3/base@smoke", "table3/E@smoke", seeds) == 0
    assert {name for name, _ in launcher.ran()} == {"table3/E@smoke"}
    many, one = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stale")]
    assert many.startswith(
        f"stale  {count} runs, table3/base@smoke seed 1 to table3/base@smoke seed {count}: other code made it: "
    )
    assert one.startswith("stale  table3/E@smoke seed 1: other code made it: the fingerprint was ba9876543210, ")


@pytest.mark.parametrize("mend", ["--rerun_stale", "delete it"])
def test_a_result_that_was_cut_off_stops_no_other_run(launcher, capsys, mend):
    """Every command says it in a line, and what to do."""
    assert launcher("table3/base@smoke") == 0
    folder = RunDir(launcher.workdir / "table3@smoke" / "base" / "seed1")
    folder.result.write_text(folder.result.read_text()[:-20])
    said = "result.json is damaged (not JSON of a run); delete it, run again"
    capsys.readouterr()
    assert launcher("table3/base@smoke", "table3/E@smoke", "--dry_run") == 0
    assert "table3/base@smoke 1 failed" in " ".join(capsys.readouterr().out.split())
    assert local.main([f"--status={launcher.workdir}"]) == 0
    assert f"failed {said}" in " ".join(capsys.readouterr().out.split())
    assert launcher("table3/base@smoke", "table3/E@smoke") == 1
    out = capsys.readouterr().out
    assert f"failed table3/base@smoke seed 1: {said}; --rerun_stale makes it anew\n" in out
    assert "1 to run, 0 done before, 1 damaged" in out
    assert launcher.ran() == [("table3/E@smoke", 1), ("table3/base@smoke", 1)]
    if mend == "delete it":
        folder.result.unlink()
    assert launcher("table3/base@smoke", *[mend] * mend.startswith("--")) == 0
    assert folder.read("result")
    assert len(launcher.ran()) == 3


def test_what_is_done_on_other_text_is_stale_until_it_is_to_be_made_anew(launcher, capsys, tmp_path):
    text = tmp_path / "text" / "multi30k"
    text.mkdir(parents=True)
    for stem in ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco"):
        for language in ("en", "de"):
            (text / f"{stem}.{language}").write_text(f"a {stem} in {language}\nanother\n")
    asked = ("table3/base@multi30k", f"--set=data.dir={tmp_path / 'text'}")
    (run,) = planned(*asked, f"--workdir={launcher.workdir}")
    data = {"corpus": "multi30k", "fingerprint": corpora.load(run.config.data).fingerprint}
    data["vocabulary_fingerprint"] = "v"
    result = {"config": run.config.to_dict(), "data": data}
    run.folder.create()
    run.folder.result.write_text(to_json(result))

    def told(*more):
        assert launcher(*asked, *more) == 0
        return [line for line in capsys.readouterr().out.splitlines() if "stale" in line and "before" not in line]

    assert told() == []
    (text / "train.de").write_text("ein Satz\nnoch einer\n")
    (line,) = told()
    assert line.startswith("stale  table3/base@multi30k seed 1: the text of multi30k is another: its fingerprint was ")
    assert line.endswith("; --rerun_stale makes it anew")
    assert told("--dry_run")
    assert launcher.ran() == []
    assert run.folder.read("result") == result
    told("--rerun_stale")
    assert launcher.ran() == [("table3/base@multi30k", 1)]
    assert [json.loads(path.read_text()) for path in run.folder.path.glob("stale/*/result.json")] == [result]
    shutil.rmtree(text)
    run.folder.result.write_text(to_json(result))
    text.mkdir()
    (text / "train.de").write_text("ein Satz\n")  # what cannot be read says nothing of a run that is done
    assert told() == []


def test_own_text_makes_the_same_run_wherever_it_lies(launcher, capsys, tmp_path):
    def text(name, train="un\tone\n"):
        (tmp_path / name).mkdir()
        for split in ("train", "dev", "test"):
            (tmp_path / name / f"{split}.tsv").write_text(train if split == "train" else "deux\ttwo\n")
        return f"--set=data.corpus=files:{tmp_path / name}"

    asked = ("table3/base@smoke", "--set=data.source=fr", "--set=data.target=en")
    first, copy, changed = text("a"), text("b"), text("c", "un\ta\n")
    (run,) = planned(*asked, first, f"--workdir={launcher.workdir}")
    data = {"corpus": "files:DIR", "fingerprint": corpora.load(run.config.data).fingerprint}
    run.hand_over()
    (again,) = planned(*asked, copy, f"--workdir={launcher.workdir}")
    assert again.state.name == "interrupted"
    again.hand_over()  # the newer folder is the one to read
    assert run.folder.read("config")["config"]["data"]["corpus"] == f"files:{tmp_path / 'b'}"
    result = {"config": run.config.to_dict(), "data": data | {"vocabulary_fingerprint": "v"}}
    run.folder.result.write_text(to_json(result))

    def told(corpus):
        assert launcher(*asked, corpus) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("stale")]

    assert told(first) == told(copy) == []
    (line,) = told(changed)
    assert "the text of files:" in line
    shutil.rmtree(tmp_path / "a")
    assert told(first) == []
    assert launcher.ran() == []
    fails(lambda: launcher(*asked), capsys, "another configuration", "data.corpus")  # the generated sentences


@pytest.mark.parametrize("lowercase", [False, True])
def test_what_is_done_on_another_version_of_a_tfds_set_is_stale(launcher, capsys, tmp_path, lowercase):
    """Its description stands for its text; where it lies nowhere, nothing is said, and nothing prepared."""
    asked = ("table3/base@paper", f"--set=data.dir={tmp_path}", f"--set=data.lowercase={lowercase}")
    (run,) = planned(*asked, f"--workdir={launcher.workdir}")
    version = tmp_path / "wmt14_translate" / "de-en" / "1.0.0"
    version.mkdir(parents=True)
    info = {"name": "wmt14_translate", "configName": "de-en", "version": "1.0.0", "fileFormat": "array_record"}
    (version / "dataset_info.json").write_text(json.dumps(info))
    fingerprint = cache.fingerprint(json.dumps(info), "en", "de")
    fingerprint = corpora.in_lower_case(fingerprint) if lowercase else fingerprint
    run.folder.create()
    run.folder.result.write_text(
        to_json({"config": run.config.to_dict(), "data": {"corpus": "x", "fingerprint": fingerprint}})
    )

    def told():
        assert launcher(*asked) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("stale")]

    assert told() == []
    (version / "dataset_info.json").write_text(json.dumps(info | {"splits": []}))
    (line,) = told()
    assert f"the text of wmt14_translate/de-en is another: its fingerprint was {fingerprint}, is now " in line
    (version / "dataset_info.json").write_text("[")  # damaged: the training says so
    assert told() == []
    shutil.rmtree(version)
    assert told() == []
    assert launcher.ran() == []


def test_a_trainers_own_error_is_kept(launcher, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "*")
    launcher.script.write_text(
        TRAINER.replace("failed = True", 'failed = run.error.write_text(to_json({"error": "mine"}))')
    )
    assert launcher("table3/base@smoke") == 1
    assert RunDir(launcher.workdir / "table3@smoke" / "base" / "seed1").read("error") == {"error": "mine"}


def test_a_run_that_is_killed_or_leaves_no_result_has_failed(launcher, monkeypatch):
    folder = RunDir(launcher.workdir / "table3@smoke" / "base" / "seed1")
    monkeypatch.setenv("FAKE_FORGET", "1")
    assert launcher("table3/base@smoke") == 1
    assert "result.json" in folder.read("error")["error"]
    monkeypatch.setenv("FAKE_FAIL", "*")
    monkeypatch.setenv("FAKE_KILL", "1")
    assert launcher("table3/base@smoke") == 1
    assert "SIGKILL" in folder.read("error")["error"]


def test_dry_run_prints_the_plan_and_starts_nothing(launcher, capsys):
    assert launcher("table3/base@smoke", "table3/E@smoke", "--dry_run") == 0
    assert not launcher.workdir.exists()
    assert launcher("table3/base@smoke") == 0
    capsys.readouterr()
    assert launcher("table3/base@smoke", "table3/E@smoke", "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    config = registry.get_config("table3/base@smoke")
    base = next(line for line in lines if "table3/base@smoke" in line)
    assert "done" in base
    assert f"{flops.parameter_count(config.model):,}" in base
    assert f"{flops.training_flops(config):.2e}" in base
    assert "pending" in next(line for line in lines if "table3/E@smoke" in line)
    refused = ("table3/base@smoke", "--set=train.steps=5", "--dry_run")
    with pytest.raises(SystemExit):
        launcher(*refused)
    assert "stale" in capsys.readouterr().out
    assert len(launcher.ran()) == 1


def test_a_plan_is_shown_from_a_folder_that_is_gone(tmp_path, monkeypatch):
    runs = planned("table3/base@smoke", f"--workdir={tmp_path}")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (folder,) = display.plan_table(runs).columns[-1].cells
    assert str(folder) == str(runs[0].folder.path)


def test_jobs_share_the_cores_and_the_longest_starts_first(launcher, monkeypatch):
    monkeypatch.setenv("FAKE_SLEEP", "0.5")
    # E is as long as base but stands later in the table; big is the longest and stands last.
    assert launcher("table3@smoke", "--only=base", "--only=big", "--only=E", "--jobs=2") == 0
    events = [json.loads(line) for line in launcher.log.read_text().splitlines()]
    assert {e["name"] for e in events[:2]} == {"table3/big@smoke", "table3/base@smoke"}
    assert [e["event"] for e in events[:2]] == ["start", "start"]  # side by side
    cores = sorted(os.sched_getaffinity(0))
    assert {e["JAX_COMPILATION_CACHE_DIR"] for e in events} == {str(launcher.workdir / ".jax_cache")}
    if len(cores) > 1:
        assert not set(events[0]["cores"]) & set(events[1]["cores"])


# Side by side


def labels(groups):
    return [[run.label.removeprefix("table3/").replace("@smoke seed ", " ") for run in group] for group in groups]


def test_runs_of_one_program_are_one_group_the_longest_first():
    runs = planned("table3@smoke", "--only=base", "--only=D/*", "--only=C/N=2", "--only=big", "--seeds=2")
    assert labels(grouping.groups(runs)) == [
        ["big 1", "big 2"],
        [f"{row} {k}" for row in ("base", "D/P_drop=0.2", "D/eps_ls=0.0", "D/eps_ls=0.2") for k in (1, 2)],
        ["D/P_drop=0.0 1", "D/P_drop=0.0 2"],
        ["C/N=2 1", "C/N=2 2"],
    ]
    assert [len(group) for group in grouping.groups(runs, 3)] == [2, 3, 3, 2, 2, 2]
    assert labels(grouping.groups(runs, 1)) == [[label] for label in labels([sorted(runs, key=lambda r: -r.flops)])[0]]


def test_runs_that_were_begun_go_with_those_that_can_go_on_with_them(tmp_path):
    runs = planned("table3/base@smoke", "--seeds=7", f"--workdir={tmp_path}")
    for run, steps in zip(runs, [(2, 4), (), (4, 6), (8,), (2, 6), (), (4,)], strict=True):
        for step in steps:
            (run.folder.checkpoints / str(step)).mkdir(parents=True)
        (run.folder.checkpoints / "4.orbax-checkpoint-tmp-1").mkdir(parents=True)
    # 5 has a step in common with 1, and one with 3, but none with both.
    assert sorted(labels(grouping.groups(runs))) == [
        ["base 1", "base 3", "base 7"],
        ["base 2", "base 6"],
        ["base 4"],
        ["base 5"],
    ]


def processes(launcher):
    """The seeds that each process trained, process by process."""
    seeds = {}
    for event in launcher.events():
        seeds.setdefault(event["pid"], []).append(event["seed"])
    return list(seeds.values())


def test_a_group_is_one_process_and_leaves_out_what_is_done(launcher, capsys):
    assert launcher("table3/base@smoke", "--seeds=2", "--jobs=1") == 0
    assert processes(launcher) == [[1], [2]]
    capsys.readouterr()
    assert launcher("table3/base@smoke", "--seeds=4", "--jobs=1", "--stack") == 0
    assert processes(launcher)[2:] == [[3, 4]]
    out = capsys.readouterr().out
    assert "2 to run, 2 done before" in out
    for seed in (3, 4):
        assert f"start  table3/base@smoke seed {seed} (2 side by side)" in out
        assert f"table3/base@smoke seed {seed} in 0:00" in out
    assert launcher("table3/base@smoke", "--seeds=7", "--jobs=1", "--stack=2") == 0
    assert processes(launcher)[3:] == [[5, 6], [7]]
    assert launcher("table3/base@smoke", "--seeds=7", "--stack") == 0
    assert len(launcher.ran()) == 7


def test_each_run_of_a_group_has_its_own_outcome(launcher, capsys, monkeypatch):
    rows = ("table3/base@smoke", "table3/D/P_drop=0.2@smoke", "table3/D/eps_ls=0.0@smoke")
    monkeypatch.setenv("FAKE_FAIL", rows[1])
    assert launcher(*rows, "--jobs=1", "--stack") == 1
    out = capsys.readouterr().out
    assert "2 done, 1 failed" in out
    sweep = launcher.workdir / "table3@smoke"
    assert f"no loss today (see {sweep / 'base' / 'seed1' / 'log.txt'})" in out
    folders = [RunDir(sweep / row / "seed1") for row in ("base", "D/P_drop=0.2", "D/eps_ls=0.0")]
    assert [folder.result.exists() for folder in folders] == [True, False, True]
    assert [folder.error.exists() for folder in folders] == [False, True, False]
    assert folders[1].read("error")["name"] == rows[1]
    assert str(sweep / "base" / "seed1" / "log.txt") in (folders[1].path / "log.txt").read_text()
    monkeypatch.setenv("FAKE_KILL", "1")
    assert launcher(*rows, "--jobs=1", "--stack") == 1
    assert "SIGKILL" in folders[1].read("error")["error"]
    monkeypatch.delenv("FAKE_FAIL")
    assert launcher(*rows, "--stack") == 0
    assert not folders[1].error.exists()
    assert len(launcher.ran()) == 5


def test_a_dry_run_shows_the_groups(launcher, capsys):
    assert launcher("table3/base@smoke") == 0
    capsys.readouterr()
    rows = ("table3/C/N=2@smoke", "table3/base@smoke", "table3/D/eps_ls=0.0@smoke")
    assert launcher(*rows, "--seeds=2", "--dry_run", "--stack") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["name", "seed", "state", "group"]
    found = [line.split()[1:4] for line in lines[1:]]
    assert [cells[:2] for cells in found[2:4]] == [["1", "done"], ["2", "pending"]]
    assert [cells[2] for cells in found if cells[1] == "pending"] == ["2", "2", "1", "1", "1"]
    assert launcher(*rows, "--dry_run") == 0
    assert capsys.readouterr().out.split()[:4] == ["name", "seed", "state", "parameters"]
    assert len(launcher.ran()) == 1


@pytest.mark.parametrize("size", ["0", "-1", "many"])
def test_a_stack_is_at_least_one_run(launcher, capsys, size):
    with pytest.raises(SystemExit) as ended:
        launcher("table3/base@smoke", f"--stack={size}")
    assert ended.value.code == 2
    assert f"takes a number from 1, or none where it stands last; got '{size}'" in capsys.readouterr().err
    assert not launcher.workdir.exists()


def test_a_job_is_given_memory_for_its_runs_and_their_size(launcher, monkeypatch):
    needs = []
    monkeypatch.setattr(preparation, "default_jobs", lambda jobs, need, *_: needs.append(need) or 1)
    monkeypatch.setattr(preparation, "check_memory", lambda *_: None)
    assert launcher("table3/base@smoke", "--seeds=4", "--stack=3") == 0
    assert launcher("table3/E@smoke", "--set", "model.d_ff=200000") == 0
    assert needs[0] == 3 * preparation.MEMORY_PER_RUN
    wide = registry.get_config("table3/E@smoke", {"model.d_ff": 200_000})
    assert needs[1] == 2 * flops.step_bytes(wide) > preparation.MEMORY_PER_RUN


def test_memory_bounds_the_processes(monkeypatch):
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 9 << 30}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert [resources.default_jobs(20, gib * 2**30) for gib in (1, 2, 4.5, 10)] == [9, 4, 2, 1]


def test_two_threads_share_a_core_and_every_job_has_one(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert [resources.default_jobs(20, threads=threads) for threads in (1, 2, 4, 100)] == [6, 6, 3, 1]


@pytest.mark.parametrize(
    ("jobs", "threads", "cores"),
    [
        (3, 2, [(0, 1), (2, 3), (4, 5)]),  # enough for all
        (6, 2, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5)]),  # each core in two
        (2, 4, [(0, 1, 2, 3), (0, 3, 4, 5)]),
        (1, 100, [(0, 1, 2, 3, 4, 5)]),
    ],
)
def test_a_slot_has_a_core_for_every_thread_if_the_machine_has(monkeypatch, jobs, threads, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert [slot.cores for slot in resources.slots(jobs, threads)] == cores


@pytest.mark.parametrize("jobs", [1, 2, 3, 4, 9])
def test_slots_are_equal_and_disjoint_while_there_are_cores(monkeypatch, jobs):
    cores = [2, 3, 5, 7, 11]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cores))
    slots = resources.slots(jobs)
    used = [core for slot in slots for core in slot.cores]
    assert len(slots) == jobs
    assert {len(slot.cores) for slot in slots} == {max(1, 5 // jobs)}
    assert set(used) <= set(cores)
    assert max(map(used.count, used)) == (1 if jobs <= 5 else 2)


def test_a_gpu_takes_a_process_and_several_share_what_there_is(monkeypatch):
    monkeypatch.setattr(
        backend.glob, "glob", lambda pattern: ["/dev/nvidia1", "/dev/nvidia0"] if "nvidia" in pattern else []
    )
    monkeypatch.setattr(backend, "_cuda_plugin", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [resources.default_jobs(runs) for runs in (1, 2, 20)] == [1, 2, 2]
    two, three = resources.slots(2), resources.slots(3)
    assert [slot.variables for slot in two] == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert [len(slot.cores) for slot in two] == [4, 4]
    assert [slot.variables["CUDA_VISIBLE_DEVICES"] for slot in three] == ["0", "1", "0"]
    assert {slot.variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] for slot in three} == {"0.45"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5f")
    assert resources.default_jobs(20) == 1
    assert resources.slots(1)[0].variables == {"CUDA_VISIBLE_DEVICES": "GPU-5f"}
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert resources.default_jobs(20) > 1
    assert resources.slots(1)[0].variables == {}
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setattr(backend, "_cuda_plugin", lambda: False)  # there is a card, but JAX computes on the CPU
    assert resources.default_jobs(20) > 1
    assert resources.slots(1)[0].variables == {}


@pytest.fixture
def cards(monkeypatch):
    """Has this machine four GPUs, or those that a test names; JAX has its plugin for them."""

    def name(visible):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    monkeypatch.setattr(
        backend.glob, "glob", lambda pattern: [f"/dev/nvidia{i}" for i in range(8)] if "nvidia" in pattern else []
    )
    monkeypatch.setattr(backend, "_cuda_plugin", lambda: True)
    monkeypatch.setenv("JAX_PLATFORMS", "")
    name("0,1,2,3")
    return name


def shared(*arguments, jobs=None):
    """The variables of the slots in which the launch of 20 runs, a group each, starts their processes."""
    groups = [[run] for run in planned("table3@smoke", "--workdir=w", *arguments)]
    return [slot.variables for slot in resources.slots(*preparation.share(groups, jobs))]


@pytest.mark.parametrize(
    ("devices", "jobs", "visible"),
    [
        (1, 4, ["0", "1", "2", "3"]),
        (1, None, ["0", "1", "2", "3"]),
        (2, None, ["0,1", "2,3"]),
        (2, 1, ["0,1"]),
        (3, None, ["0,1,2"]),  # what is left over is too little for another
        (4, None, ["0,1,2,3"]),
        (0, None, ["0,1,2,3"]),
    ],
)
def test_a_process_has_as_many_gpus_as_its_runs_ask_for(cards, devices, jobs, visible):
    found = shared(f"--set=parallel.devices={devices}", jobs=jobs)
    assert found == [{"CUDA_VISIBLE_DEVICES": names} for names in visible]


@pytest.mark.parametrize(
    ("devices", "jobs", "visible", "fraction"),
    [
        (1, 6, ["0", "1", "2", "3", "0", "1"], "0.45"),
        (2, 3, ["0,1", "2,3", "0,1"], "0.45"),
        (3, 2, ["0,1,2"] * 2, "0.45"),
        (0, 3, ["0,1,2,3"] * 3, "0.30"),
    ],
)
def test_more_jobs_than_groups_of_gpus_share_their_memory(cards, devices, jobs, visible, fraction):
    found = shared(f"--set=parallel.devices={devices}", jobs=jobs)
    assert [variables["CUDA_VISIBLE_DEVICES"] for variables in found] == visible
    assert {variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] for variables in found} == {fraction}


@pytest.mark.parametrize("name", ["XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"])
def test_how_much_memory_of_a_gpu_the_user_says_stays(cards, monkeypatch, name):
    """Under the name that the user takes, too: JAX refuses both at once."""
    monkeypatch.setenv(name, "0.20")
    assert shared(jobs=6) == [{"CUDA_VISIBLE_DEVICES": visible} for visible in "012301"]
    assert resources.memory_fraction(0.25) == {}
    monkeypatch.setenv(name, "")
    assert resources.memory_fraction(0.25) == {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.23"}


def test_tasks_of_ray_that_share_a_gpu_share_its_memory_unless_the_user_says_how(monkeypatch):
    ray_pool, asked = pytest.importorskip("launch.ray_pool", reason="ray missing; pip install -e '.[ray]'"), []
    task = types.SimpleNamespace(remote=lambda *given: asked.append(given))
    monkeypatch.setattr(ray_pool.ray, "remote", lambda **_: lambda _: task)
    name = "XLA_PYTHON_CLIENT_MEM_FRACTION"

    def fraction(gpus):
        ray_pool.RayPool(1, list, {}, 1, 60.0, cpus=1, gpus=gpus)._make([], None)
        variables, defaults = asked[-1][3:5]
        return (defaults | variables).get(name)

    monkeypatch.delenv(name, raising=False)
    assert [fraction(gpus) for gpus in (0, 0.5, 1)] == [None, "0.45", None]
    monkeypatch.setenv(name, "0.20")
    assert [fraction(gpus) for gpus in (0, 0.5, 1)] == ["0.20"] * 3


def test_the_run_with_the_most_devices_decides(cards, monkeypatch):
    most = preparation.most_devices
    runs = planned("table3/base@smoke", "--workdir=w", "--grid=parallel.devices=1,3")
    assert [run.config.parallel.devices for run in runs] == [1, 1, 3]
    assert [most([[run] for run in those]) for those in ([], runs[:2], runs)] == [1, 1, 3]
    everything = planned("table3/base@smoke", "--workdir=w", "--set=parallel.devices=0")
    assert most([runs, everything]) == 4
    decoding = planned("decoding@smoke", "--only=beam=*/alpha=0.6/average=1", "--workdir=w", "--set=parallel.devices=2")
    assert most([decoding]) == 2
    assert most([[run for run in decoding if run.trained_in]]) == 1
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert most([runs, everything]) == 1


def test_a_process_has_one_instance_of_mig_at_most(cards):
    cards("MIG-7a,MIG-7b")
    assert shared("--set=parallel.devices=0") == [{"CUDA_VISIBLE_DEVICES": name} for name in ("MIG-7a", "MIG-7b")]
    with pytest.raises(
        UserError, match=r"^parallel\.devices=2, but this machine has 1 GPU for a process; set it to at"
    ):
        shared("--set=parallel.devices=2")


def test_more_devices_than_there_are_is_an_error_before_anything(cards, launcher, capsys):
    message = "parallel.devices=5, but this machine has 4 GPUs for a process; set it to at most 4, or to 0 for all"
    fails(lambda: launcher("table3/base@smoke", "--set=parallel.devices=5"), capsys, message)
    assert not launcher.workdir.exists()
    assert not launcher.prepared


def test_the_largest_run_is_tried_on_the_gpus_that_it_will_have(cards, launcher, monkeypatch):
    monkeypatch.setattr(preparation, "TRIED", 0)
    name = "XLA_PYTHON_CLIENT_MEM_FRACTION"
    rehearsing = (
        'if sys.argv[-1] == "--rehearse":\n    with open(os.environ["FAKE_LOG"], "a") as log:\n'
        '        log.write(json.dumps({"event": "try", "gpus": os.environ["CUDA_VISIBLE_DEVICES"], '
        f'"memory": os.environ.get("{name}")}}) + "\\n")\n    sys.exit()\n'
    )
    launcher.script.write_text(TRAINER.replace("failed = False", rehearsing + "failed = False"))
    arguments = ["table3/A/*@smoke", "--set=parallel.devices=2"]
    assert launcher(*arguments) == 0
    assert launcher("table3/E@smoke", *arguments[1:], "--jobs=3") == 0
    assert launcher("table3/big@smoke") == 0
    tried = [(event["gpus"], event["memory"]) for event in launcher.events("try")]
    assert tried == [("0,1", None), ("0,1", "0.45"), ("0", None)]
    used = {event["name"]: event["gpus"] for event in launcher.events()}
    assert set(used.values()) == {"0,1", "2,3", "0"}
    assert used["table3/big@smoke"] == "0"


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        (["--gpus=8"], 8),
        (["--gpus=8", "--set=parallel.devices=2"], 4),
        (["--gpus=8", "--set=parallel.devices=3"], 2),
        (["--gpus=8", "--set=parallel.devices=0"], 1),
        (["--gpus=8", "--set=parallel.devices=8", "--tune=optim.lr_factor=0.5,1"], 1),
        (["--gpus=8", "--set=parallel.devices=2", "--jobs=3"], 3),
        (["--set=parallel.devices=2"], 1),  # on CPUs
    ],
)
def test_a_worker_of_slurm_makes_as_many_runs_as_it_has_gpus_for(cards, launcher, monkeypatch, arguments, jobs):
    cards("0")  # of where it is launched from
    submitted = []
    worker_of = types.SimpleNamespace(SlurmWorker=lambda given, *_: given)  # submitit may not be there
    monkeypatch.setitem(sys.modules, "launch.slurm_worker", worker_of)
    monkeypatch.setattr(slurm, "_sbatch_errors", contextlib.nullcontext)
    monkeypatch.setattr(
        slurm,
        "_executor",
        lambda *_, **__: types.SimpleNamespace(submit_array=lambda those: submitted.extend(those) or []),
    )
    given = ["table3/base@smoke", f"--workdir={launcher.workdir}", "--time=10", *arguments]
    assert slurm.main(given, prepare=lambda runs: None) == 0
    assert [[one for one in those if one.startswith("--jobs=")][-1] for those in submitted] == [f"--jobs={jobs}"]


def test_more_devices_than_a_worker_of_slurm_has_is_an_error_before_anything(cards, launcher, capsys, monkeypatch):
    monkeypatch.setattr(slurm, "_executor", lambda *_, **__: None)
    given = ["table3/base@smoke", f"--workdir={launcher.workdir}", "--time=10", "--gpus=2", "--set=parallel.devices=4"]
    wanted = (
        "parallel.devices=4, but a worker has 2 GPUs for a process; set it to at most 2, to 0 for all, or --gpus to 4"
    )
    fails(lambda: slurm.main(given, prepare=launcher.prepared.append), capsys, wanted)
    assert not launcher.workdir.exists()
    assert not launcher.prepared


def test_progress_reads_the_newest_whole_line(tmp_path):
    folder = RunDir(tmp_path)
    assert metrics_log.newest(folder) == {}
    lines = [{"step": k, "loss": 1.0 / k, "timing": {"target_tokens_per_s": 10.0 * k}} for k in range(1, 200)]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 200, "dev_ppl": 3.0, "timing": {}}])
    folder.metrics.write_text(text + '{"step": 201, "lo')
    assert metrics_log.newest(folder) == {"step": 200, "loss": 1.0 / 199, "target_tokens_per_s": 1990.0}


def test_an_unwritable_workdir_is_an_error_before_anything(launcher, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    launcher.workdir = tmp_path / "file" / "runs"
    fails(lambda: launcher("table3/base@smoke"), capsys, "cannot write", "--workdir")
    assert not launcher.prepared


def test_missing_text_is_an_error_before_any_run(launcher, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TX_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setattr(launcher, "prepared", None)  # the real preparation runs instead
    arguments = ["table3/base@smoke", f"--workdir={launcher.workdir}", "--set=model.positions=learnd"]
    fails(lambda: local.main(arguments), capsys, "learnd", "learned")
    assert not launcher.workdir.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_launch_ends_its_runs_and_goes_on_later(launcher, tmp_path, number):
    script = tmp_path / "start.py"
    script.write_text(
        "import sys\nfrom launch import local\n"
        f"command = lambda runs: [sys.executable, {str(launcher.script)!r}, *local.plan.arguments(runs)]\n"
        "sys.exit(local.main(command=command, prepare=lambda runs: None, report=lambda folders: None))\n"
    )
    arguments = ["table3/base@smoke", "table3/E@smoke", f"--workdir={launcher.workdir}", "--jobs=2"]
    process = subprocess.Popen([sys.executable, script, *arguments], env=os.environ | {"FAKE_SLEEP": "600"})
    while len(launcher.events()) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait() == 130
    for event in launcher.events():
        with pytest.raises(ProcessLookupError):
            os.kill(event["pid"], 0)
    assert not list(launcher.workdir.rglob("error.json"))
    assert launcher("table3/base@smoke", "table3/E@smoke") == 0
    assert len(launcher.events("end")) == 2


def test_the_real_command_line_trains_this_configuration(tmp_path):
    """And who reads it imports nothing by path to find out what is to be trained, nor this package."""
    runs = planned("table3/base@smoke", "--grid=model.num_heads=2,4", f"--workdir={tmp_path}")
    command = pool.train_command(runs)
    assert command == [sys.executable, "-m", "tx.train", *(str(run.folder.path) for run in runs)]
    for run in runs:
        run.hand_over()
    code = (
        "import sys\nfrom tx import train\nfor request in train._asked(sys.argv[1:])[0]:\n"
        "    print(request.folder.path, request.config.to_json())\nprint('experiments' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *command[3:]], check=True, capture_output=True, text=True)
    *lines, imported = done.stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines] == command[3:]
    assert [json.loads(line.partition(" ")[2]) for line in lines] == [json.loads(run.config.to_json()) for run in runs]
    assert imported == "False"


def test_what_is_handed_over_says_where_to_compute_and_keeps_whose_code_began_it(tmp_path, capsys):
    (run,) = planned("table3/base@smoke", f"--workdir={tmp_path}")
    run.hand_over()
    assert run.folder.read("config").keys() == {"name", "seed", "config"}
    begun = run.folder.read("config") | {"numerics": "0123456789ab"}
    run.folder.config.write_text(json.dumps(begun))
    before = run.folder.config.stat().st_ino
    run.hand_over()
    assert run.folder.config.stat().st_ino == before  # nothing differs: nothing is written
    (run,) = planned("table3/base@smoke", f"--workdir={tmp_path}", "--set=parallel.threads=2")
    run.hand_over()
    assert handed_over(run.folder).config.parallel.threads == 2
    assert run.folder.read("config")["numerics"] == "0123456789ab"


def test_another_configuration_that_came_meanwhile_is_not_written_over(tmp_path):
    (run,) = planned("table3/base@smoke", f"--workdir={tmp_path}")
    (other,) = planned("table3/base@smoke", f"--workdir={tmp_path}", "--set=train.steps=5")
    other.hand_over()
    before = run.folder.config.read_bytes()
    with pytest.raises(UserError, match=r"another configuration \(train.steps: 5 there, 750 asked for\)"):
        run.hand_over()
    assert run.folder.config.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_configuration_that_is_damaged_makes_way_for_the_one_asked_for(launcher, capsys, content):
    """No message says to delete it, and --status says what becomes of the run."""
    folder = RunDir(launcher.workdir / "table3@smoke" / "base" / "seed1")
    folder.create()
    folder.config.write_text(content)
    assert local.main([f"--status={launcher.workdir}"]) == 0
    assert "stale config.json is damaged: it begins anew" in " ".join(capsys.readouterr().out.split())
    assert launcher("table3/base@smoke", "--set=train.steps=5") == 0
    assert folder.read("config")["config"]["train"]["steps"] == 5
    assert len(launcher.ran()) == 1


def test_a_process_that_began_nothing_leaves_the_place_to_another_configuration(launcher):
    launcher.script.write_text('import sys\nsys.exit("error: data.batch_rows=64 cannot be split")')
    assert launcher("table3/base@smoke") == 1
    folder = RunDir(launcher.workdir / "table3@smoke" / "base" / "seed1")
    assert "cannot be split" in folder.read("error")["error"]
    assert not folder.config.exists()
    launcher.script.write_text(TRAINER)
    assert launcher("table3/base@smoke", "--set=train.steps=5") == 0
    assert folder.read("config")["config"]["train"]["steps"] == 5


def test_a_launch_that_is_ended_takes_back_what_nobody_has_begun(tmp_path):
    runs = planned("table3/base@smoke", "--seeds=2", f"--workdir={tmp_path}")
    ending = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pool.Pool(1, lambda runs: ending, {}) as started:
        started.start(runs)
        assert all(run.folder.config.exists() for run in runs)
        runs[1].folder.config.write_text(to_json(runs[1].folder.read("config") | {"numerics": "0123456789ab"}))
    assert [run.folder.config.exists() for run in runs] == [False, True]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (None, "config.json does not exist"),
        ("{", "is not JSON"),
        ("[]", "is not what a run writes"),
        ('{"config": {"train": {"setps": 5}}}', "no configuration field 'train.setps'"),
        ('{"config": {"train": {"steps": 0}}}', "train.steps must be positive"),
        ('{"config": {}, "trained_in": 3}', "is not what a run writes"),
    ],
)
def test_a_folder_without_a_usable_configuration_is_refused_in_a_line(tmp_path, content, wanted):
    run = RunDir(tmp_path)
    if content:
        run.config.write_text(content)
    with pytest.raises(UserError) as caught:
        handed_over(run)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_planning_imports_no_jax(tmp_path):
    code = (
        "import sys\nfrom launch import local\n"
        f"local.main(['table3@smoke', '--dry_run', '--workdir={tmp_path}/w'])\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_dry_run_says_what_its_seeds_resolve_from_those_that_are_done(tmp_path):
    for row, bleu in (("base", 30.0), ("E", 31.0)):
        for seed in (1, 2):
            fabricated.put(tmp_path, f"table3/{row}@smoke", seed, bleu=bleu + seed, ppl=5.0 + seed / 10)
    code = (
        "import sys\nfrom launch import local\n"
        f"local.main(['table3@smoke', '--only=base,E', '--seeds=3', '--dry_run', '--workdir={tmp_path}'])\n"
        "assert 'jax' not in sys.modules\n"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "table3@smoke: Power: 3 seeds resolve " in said
    assert "that would tell them: " in said


# One training, decoded in several ways


def test_what_differs_in_decoding_alone_is_trained_once(launcher):
    runs = planned("decoding@smoke", "--only=beam=2/*average=1", "--seeds=2", f"--workdir={launcher.workdir}")
    trained = [run for run in runs if run.trained_in is None]
    assert [(run.name, run.seed) for run in trained] == [
        ("decoding/beam=4/alpha=0.6/average=1@smoke", 1),
        ("decoding/beam=4/alpha=0.6/average=1@smoke", 2),
    ]
    assert len(runs) == 2 * (1 + 3)
    for run in runs:
        if run.trained_in:
            assert run.flops == 0
            assert run.trained_in.path == launcher.workdir / trained[0].folder.path.parent / f"seed{run.seed}"
        run.hand_over()
        told = handed_over(run.folder).trained_in
        assert (told and told.path) == (run.trained_in and run.trained_in.path)


def test_a_grid_of_decoding_takes_the_parameters_of_the_variant(launcher):
    grid = ["--grid", "decode.beam=1,2", "--grid", "model.dropout=0.1,0.3", "--set", "train.steps=7"]
    runs = planned("table3/base@smoke", *grid, f"--workdir={launcher.workdir}")
    found = {run.name: run.trained_in and run.trained_in.path.parent.name for run in runs}
    assert found == {
        "table3/base+beam=1,dropout=0.1@smoke": "base",
        "table3/base+beam=2,dropout=0.1@smoke": "base",
        "table3/base+beam=1,dropout=0.3@smoke": None,
        "table3/base+beam=2,dropout=0.3@smoke": None,
        "table3/base@smoke": None,
    }
    assert {run.config.train.steps for run in runs} == {7}


@pytest.mark.parametrize("failing", [False, True])
def test_decoding_waits_for_the_training(launcher, monkeypatch, failing):
    """Three with a beam of 2 take the parameters of one with a beam of 4."""
    monkeypatch.setenv("FAKE_SLEEP", "0.2")
    if failing:
        monkeypatch.setenv("FAKE_FAIL", "decoding/beam=4/alpha=0.6/average=1@smoke")
    status = launcher("decoding@smoke", "--only=beam=2/*average=1", "--jobs=3")
    assert status == failing
    log = [json.loads(line) for line in launcher.log.read_text().splitlines()]
    first, *others = log if failing else log[1:]  # of the training: its start where it fails, else its end
    assert first["name"] == "decoding/beam=4/alpha=0.6/average=1@smoke"
    assert first["event"] == ("start" if failing else "end")
    assert {e["name"].split("/")[1] for e in others} == {"beam=2"}
    assert len([e for e in others if e["event"] == "start"]) == 3
    if not failing:
        assert launcher("decoding@smoke", "--only=beam=2/*average=1") == 0
        assert len(launcher.events()) == 4  # nothing is done twice


def test_parameters_that_other_code_has_trained_are_not_decoded(launcher, capsys):
    asked, trained = ("decoding@smoke", "--only=beam=2/*average=1"), "decoding/beam=4/alpha=0.6/average=1@smoke"
    assert launcher(trained) == 0
    folder = RunDir(launcher.workdir / "decoding@smoke" / "beam=4" / "alpha=0.6" / "average=1" / "seed1")
    whole = folder.read("result")
    folder.result.write_text(to_json(whole | {"numerics": "0123456789ab"}))
    wanted = ("beam=2/alpha=0.0/average=1@smoke seed 1 (and 2 more runs) takes the parameters of", f"{trained} seed 1")
    capsys.readouterr()
    fails(lambda: launcher(*asked), capsys, *wanted, "the fingerprint was 0123456789ab", "--rerun_stale")
    assert len(launcher.ran()) == len(launcher.prepared) == 1
    assert launcher(*asked, "--rerun_stale") == 0
    assert len(launcher.ran()) == 2 + 3
    assert RunDir(folder.path / "stale" / "0123456789ab").read("result")["numerics"] == "0123456789ab"


def test_time_left_counts_trainings_by_flops_and_decodings_by_number(tmp_path):
    runs = planned("decoding@smoke", "--only=beam=4/alpha=*/average=1", f"--workdir={tmp_path}")
    train, *decodings = sorted(runs, key=lambda run: run.flops == 0)
    assert train.flops > 0
    assert [run.flops for run in decodings] == [0, 0]

    def took(run, seconds):
        now = running_time()
        return pool.Job([run], resources.slots(1)[0], None, began=now - seconds, ended=now)

    def said(*ended, running=()):
        out = io.StringIO()
        shown = display.View(runs, runs, running, Console(file=out))
        for job in ended:
            shown.ended(job, job.runs[0], pool.Outcome("done"))
        return out.getvalue().splitlines()[-1].partition(", ")[2]

    assert said(took(train, 200)) == "? left"  # nobody has seen how long a decoding takes
    assert said(took(decodings[0], 30)) == "? left"
    assert said(took(train, 200), took(decodings[0], 30)) == "0:00:30 left"
    assert said(took(train, 200), took(decodings[0], 30), took(decodings[1], 30)) == "0:00:00 left"
    # Half of the training took 100 seconds, so the other half will; a decoding is left as well, and what comes after
    # the steps, which nobody has seen.
    train.folder.path.mkdir(parents=True)
    train.folder.metrics.write_text(json.dumps({"step": train.config.train.steps // 2}) + "\n")
    assert said(took(decodings[0], 30), running=[took(train, 100)]) == "over 0:02:10 left"


def test_a_row_is_resolved_once_and_its_seeds_share_nothing_that_differs(tmp_path, monkeypatch):
    resolved = []
    resolve = registry.resolve
    monkeypatch.setattr(registry, "resolve", lambda *args: resolved.append(args) or resolve(*args))
    runs = planned("table3@smoke", "--seeds=40", f"--workdir={tmp_path}")
    assert len(runs) == 800
    assert len(resolved) == 20
    for run in (runs[0], runs[39], runs[799]):
        assert run.config.train.seed == run.seed
        assert run.config.to_dict() == resolve(*registry.parse(run.name), {"train.seed": run.seed}).to_dict()
        assert run.config.is_locked
        assert run.config.train.is_locked
    assert [run.seed for run in runs[:40]] == list(range(1, 41))


def test_one_row_is_planned_without_the_others(tmp_path):
    """Other rows of its sweep may not take what is set for it."""
    settings = ["--set=model.attention_backend=cudnn", "--set=model.dtype=bfloat16"]
    (run,) = planned("table3/big@paper", *settings, f"--workdir={tmp_path}")
    assert run.config.model.attention_backend == "cudnn"
