"""Tuning: which runs, which point is chosen, picking up what was left, and the table of the rows tuned."""

import csv
import fcntl
import io
import itertools
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from fabricated import cells, fail, put
from hypothesis import given
from hypothesis import strategies as st
from test_launch import fails, launcher  # noqa: F401, a fixture

from experiments import __main__ as experiments
from experiments import launches, registry, tuning
from experiments.launches import AskedRow
from experiments.page import pictures
from experiments.report import differences_table, main_table, reading, tuned_table
from experiments.tuning import Asked
from launch import command_line, grouping, local, plan
from launch import tuning as stages_of
from tx.errors import UserError

LR = "optim.lr_factor"
GRID = f"--tune={LR}=0.5,1,2"
BASE, SMALL = "table3/base@smoke", "table3/C/N=2@smoke"

# It makes whole results, after FAKE_RESULT, whose dev losses come from FAKE_LOSSES ({variant: loss}, 1 where it says
# nothing; None fails), and hangs at the seeds of FAKE_HANG.
TRAINER = textwrap.dedent(
    """
    import json, os, sys, time
    from tx.files import to_json
    from tx.runs.run_config import handed_over
    from tx.runs.run_dir import RunDir

    losses = json.loads(os.environ.get("FAKE_LOSSES", "{}"))
    failed = False
    for folder in sys.argv[1:]:
        config, run, _ = handed_over(RunDir(folder))
        run.config.write_text(to_json({"config": config.to_dict()}))
        with open(os.environ["FAKE_LOG"], "a") as log:
            record = {"event": "start", "name": config.name, "seed": config.train.seed, "pid": os.getpid()}
            log.write(json.dumps(record) + "\\n")
        if str(config.train.seed) in os.environ.get("FAKE_HANG", ""):
            time.sleep(600)
        loss = losses.get(config.name.removeprefix("table3/").removesuffix("@smoke"), 1.0)
        if loss is None:
            failed = True
            continue
        result = json.load(open(os.environ["FAKE_RESULT"])) | {"config": config.to_dict()}
        result["dev"]["nll"] = loss
        run.result.write_text(to_json(result))
    if failed:
        sys.exit("error: no loss today")
    """
)


@pytest.fixture
def tuner(launcher, tmp_path, monkeypatch):  # noqa: F811
    launcher.script.write_text(TRAINER)
    monkeypatch.setenv("FAKE_RESULT", str(put(tmp_path / "made_up", BASE, 1) / "result.json"))
    return launcher


def losses(monkeypatch, **by_value):
    """Sets the dev losses of base's points: losses(monkeypatch, **{"0.5": 2.0})."""
    monkeypatch.setenv("FAKE_LOSSES", json.dumps({f"base+lr_factor={value}": loss for value, loss in by_value.items()}))


def recorded(workdir):
    told = json.loads((workdir / "table3@smoke" / "tuning.json").read_text())
    return {row["row"]: row for row in told["rows"]}


def arguments(*given):
    return command_line.parser_of().parse_intermixed_args(given)


def runs(planned):
    return [(run.name, run.seed) for run in planned]


# Which runs


def test_every_row_the_base_too_is_run_at_every_point_with_one_seed():
    grid, fresh = stages_of.stages(arguments("table3@smoke", GRID, "--seeds=5", "--workdir=/w"))
    rows = [variant.name for variant in registry.variants("table3")]
    made = grid.plan()
    assert runs(made) == [(f"table3/{row}+lr_factor={v}@smoke", 1) for row in rows for v in ("0.5", "1", "2")]
    assert str(made[1].folder.path) == "/w/table3@smoke/base+lr_factor=1/seed1"
    assert [run.config.optim.lr_factor for run in made[:3]] == [0.5, 1.0, 2.0]  # whatever the scale
    as_grid = plan.make(arguments("table3@smoke", f"--grid={LR}=0.5,1,2", "--workdir=/w", "--only=*"))
    assert [(run.folder.path, run.config.to_dict(), run.trained_in) for run in made] == [
        (run.folder.path, run.config.to_dict(), run.trained_in) for run in as_grid
    ]
    assert fresh.plan() == []
    preview = fresh.preview()
    assert runs(preview) == [(f"table3/{row}@smoke, chosen point", seed) for row in rows for seed in range(2, 7)]
    assert len({run.folder.path for run in preview}) == len(preview)


def test_points_that_differ_in_decoding_alone_take_the_parameters_of_their_variant():
    grid, fresh = stages_of.stages(arguments(BASE, "--tune=decode.average_last=2,3", "--workdir=/w"))
    assert [(run.name, run.trained_in is not None) for run in grid.plan()] == [
        ("table3/base+average_last=2@smoke", True),
        ("table3/base+average_last=3@smoke", True),
        (BASE, False),
    ]
    (run,) = fresh.preview()
    assert (run.name, run.flops) == (f"{BASE}, chosen point", 0)


def test_a_plain_launch_has_one_stage():
    (stage,) = stages_of.stages(arguments("table3@smoke", "--seeds=2"))
    assert stage.title == ""
    assert runs(stage.plan()) == runs(plan.make(arguments("table3@smoke", "--seeds=2")))


def test_a_rows_grid_is_one_program_and_so_are_its_fresh_seeds(tmp_path):
    for loss, value in ((2.0, 0.5), (1.5, 1.0), (1.8, 2.0)):
        point(tmp_path, BASE, value, loss)
    grid, fresh = stages_of.stages(arguments(BASE, SMALL, GRID, "--seeds=4", f"--workdir={tmp_path}"))
    names = [run.name for run in grid.plan() if not run.state.finished]
    assert [[run.name for run in group] for group in grouping.groups(grid.plan())] == [names]
    assert [runs(group) for group in grouping.groups(fresh.plan())] == [
        [("table3/base+lr_factor=1@smoke", seed) for seed in (2, 3, 4, 5)]
    ]
    both = stages_of.stages(arguments(BASE, SMALL, GRID, f"--workdir={tmp_path / 'new'}"))[0].plan()
    assert [[run.name for run in group] for group in grouping.groups(both)] == [
        [f"table3/{row}+lr_factor={value}@smoke" for value in ("0.5", "1", "2")] for row in ("base", "C/N=2")
    ]
    assert [len(group) for group in grouping.groups(both, 2)] == [2, 1, 2, 1]


def test_several_fields_are_a_product_around_every_point_of_a_grid():
    product = ["--tune=loss.label_smoothing=0.0,0.1", f"--tune={LR}=1,2", "--grid=model.num_heads=1,2"]
    made = stages_of.stages(arguments(BASE, *product, "--workdir=/w"))[0].plan()
    assert [run.folder.path.parent.name for run in made] == [
        f"base+label_smoothing={smoothing},{heads}lr_factor={rate}"
        for heads in ("", "num_heads=1,", "num_heads=2,")  # the base, which differences are from, is tuned as well
        for smoothing in ("0", "0.1")
        for rate in (1, 2)
    ]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([GRID, f"--set={LR}=1"], [LR, "--set", "--tune", "leave one out"]),
        ([GRID, f"--grid={LR}=1,2"], [LR, "--grid", "--tune", "leave one out"]),
        (["--tune=optim.lr_facto=1,2"], ["optim.lr_facto", f"the nearest is {LR!r}"]),
        ([f"--tune={LR}=1,fast"], [LR, "finite number"]),
        ([f"--tune={LR}"], ["--tune takes FIELD=VALUE,VALUE"]),
        (["--tune=train.seed=1,2"], ["--tune", "--seeds"]),
        ([GRID, "--tune=optim.lr_factor=3"], [LR, "twice"]),
        ([GRID, "--seeds=0"], ["--seeds"]),
        ([GRID, "--only=Z"], ["--only=Z"]),
        (["--tune=decode.beam=1,2"], ["the dev loss", "decode.beam", "use --grid decode.beam=..."]),
        (["--tune=probe.metrics=ter,"], ["the dev loss", "probe.metrics", "use --grid probe.metrics=..."]),
        (["--tune=parallel.threads=1,2"], ["the dev loss", "parallel.threads", "use --set parallel.threads=..."]),
        (["--tune=data.dir=a,b"], ["the dev loss", "data.dir", "use --set data.dir=..."]),
    ],
)
def test_what_the_caller_has_to_mend_is_one_line(tuner, capsys, given, wanted):
    fails(lambda: tuner("table3@smoke", *given), capsys, *wanted)
    assert not tuner.workdir.exists()


# Which point is chosen


def choice(grid, dev_losses):
    asked = Asked("base", {}, grid, (2,))
    return tuning.choose(asked, dict(zip(asked.points, dev_losses, strict=True)))


@pytest.mark.parametrize(
    ("values", "dev_losses", "chosen", "at_edge"),
    [
        ([0.5, 1.0, 2.0], [3.0, 2.0, 2.5], "1", False),
        ([0.5, 1.0, 2.0], [3.0, 2.5, 2.0], "2", True),
        ([0.5, 1.0, 2.0], [1.0, 2.5, 2.0], "0.5", True),
        ([2.0, 0.5, 1.0], [3.0, 4.0, 2.0], "1", False),  # in whatever order they are typed
        ([2.0, 1.0, 0.5], [2.0, 2.0, 2.5], "1", False),  # of equals the least
        ([1.0, 2.0, 0.5], [2.0, 2.0, 2.5], "1", False),
        ([0.5, 1.0, 2.0], [math.nan, 2.5, tuning.FAILED], "1", False),  # beyond it nothing trains
        ([0.5, 1.0, 2.0], [math.inf, math.nan, 9.0], "2", True),
    ],
)
def test_the_lowest_finite_dev_loss_wins(values, dev_losses, chosen, at_edge):
    found = choice({LR: values}, dev_losses)
    assert (found.point, bool(found.edges)) == (f"base+lr_factor={chosen}", at_edge)


def test_nothing_is_chosen_before_the_grid_is_done_or_where_all_failed():
    grid = {LR: [0.5, 1.0, 2.0]}
    assert choice(grid, [1.0, None, None]) == (tuning.Choice(None, why="2 of the 3 points of its grid not done"))
    nothing = choice(grid, [math.nan, math.inf, tuning.FAILED])
    assert (nothing.point, nothing.why) == (None, "none of the 3 points of its grid has a finite dev loss")


def test_the_edge_is_of_numbers_alone_and_names_the_field():
    found = choice({LR: [1.0, 2.0, 3.0], "model.positions": ["none", "learned"]}, [9.0] * 4 + [1.0, 9.0])
    assert found == tuning.Choice("base+positions=none,lr_factor=3", (LR,))
    assert choice({"model.projection_bias": [False, True]}, [1.0, 2.0]).edges == ()


@given(st.data())
def test_the_choice_is_that_of_an_exhaustive_search(data):
    rates = data.draw(st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]), min_size=1, unique=True))
    steps = data.draw(st.lists(st.sampled_from([100, 200, 300]), min_size=1, unique=True))
    pairs = list(itertools.product(rates, steps))
    values = st.sampled_from([1.0, 1.5, math.nan, math.inf])
    dev = data.draw(st.lists(values, min_size=len(pairs), max_size=len(pairs)))
    best, least = None, (math.inf,)
    for (rate, warmup), loss in zip(pairs, dev, strict=True):
        if loss < math.inf and (loss, rate, warmup) < least:
            best, least = (rate, warmup), (loss, rate, warmup)
    asked = Asked("base", {}, {LR: rates, "optim.warmup_steps": steps}, (2,))
    found = tuning.choose(asked, dict(zip(asked.points, dev, strict=True)))
    assert (tuple(asked.points[found.point].values()) if found.point else None) == best


def test_sensitivity_is_the_mean_loss_above_the_best_no_worse_than_guessing():
    dev, guessing = np.array([2.0, 1.5, 1.7, 9.0, np.nan]), math.log(500)
    by_hand = np.minimum(np.where(np.isnan(dev), np.inf, dev), guessing).mean() - np.nanmin(dev)
    assert tuning.sensitivity(dev.tolist(), guessing) == pytest.approx(by_hand)
    assert tuning.sensitivity([1.5, 1.5], guessing) == 0
    assert tuning.sensitivity([9.0, math.nan], guessing) == 0


# The record


def test_a_record_waits_for_who_holds_the_folder(tmp_path):
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    one = Asked("base", {}, {LR: [1.0, 2.0]}, (2,))
    thread = threading.Thread(target=tuning.record, args=(tmp_path, [(one, dict.fromkeys(one.points))]))
    thread.start()
    thread.join(0.3)
    assert not (tmp_path / "tuning.json").exists()
    os.close(held)
    thread.join(30)
    assert tuning.read(tmp_path) == [one]


# Running them


def test_the_grid_then_fresh_seeds_of_the_point_chosen(tuner, monkeypatch, capsys):
    losses(monkeypatch, **{"0.5": 2.0, "1": 1.5, "2": 1.75})
    assert tuner(BASE, GRID, "--seeds=2") == 0
    points = [(f"table3/base+lr_factor={value}@smoke", 1) for value in ("0.5", "1", "2")]
    fresh = [("table3/base+lr_factor=1@smoke", seed) for seed in (2, 3)]
    assert tuner.ran() == sorted(points + fresh)
    assert [event["seed"] > 1 for event in tuner.events()] == [False, False, False, True, True]
    out = capsys.readouterr().out
    assert f"tuned  {BASE}: {LR}=1.0 of 0.5, 1.0, 2.0, dev loss 1.5000\n" in out
    assert "EDGE" not in out
    assert tuner.reported == [[tuner.workdir / "table3@smoke"]]
    row = recorded(tuner.workdir)["base"]
    assert row["points"] == {"base+lr_factor=0.5": 2.0, "base+lr_factor=1": 1.5, "base+lr_factor=2": 1.75}
    assert (row["grid"], row["seeds"]) == ({LR: [0.5, 1.0, 2.0]}, [2, 3])
    assert (row["chosen"], row["at_edge"]) == ("base+lr_factor=1", [])
    assert tuner(BASE, GRID, "--seeds=2") == 0
    assert len(tuner.ran()) == 5


def test_a_wider_grid_runs_what_is_new_and_may_choose_anew(tuner, monkeypatch, capsys):
    losses(monkeypatch, **{"0.5": 2.0, "1": 1.8, "2": 1.5, "4": 1.25, "8": 3.0})
    assert tuner(BASE, GRID) == 0
    assert f"AT THE EDGE of the grid of {LR}" in capsys.readouterr().out
    assert recorded(tuner.workdir)["base"]["at_edge"] == [LR]
    before = tuner.ran()
    assert tuner(BASE, f"--tune={LR}=0.5,1,2,4,8") == 0
    new = [("table3/base+lr_factor=4@smoke", 1), ("table3/base+lr_factor=4@smoke", 2)]
    assert tuner.ran() == sorted([*before, *new, ("table3/base+lr_factor=8@smoke", 1)])
    assert recorded(tuner.workdir)["base"]["chosen"] == "base+lr_factor=4"


def test_further_seeds_add_up_while_no_point_is_left_out(tuner, monkeypatch):
    """Where another point is chosen, what was made of the one before is none of its runs."""

    def fresh():
        (found,) = reading.read([tuner.workdir / "table3@smoke"])
        (base,) = tuned_table.read(found)
        return base.choice.point.partition("=")[2], [run.seed for run in base.fresh.runs], base.asked.seeds

    losses(monkeypatch, **{"0.5": 2.0, "1": 1.5, "2": 1.75, "4": 1.25})
    assert tuner(BASE, GRID, "--seeds=2") == 0
    assert tuner(BASE, GRID, "--seeds=4,") == 0
    assert fresh() == ("1", [2, 3, 4], (2, 3, 4))
    assert tuner(BASE, f"--tune={LR}=0.5,1,2,4", "--seeds=5,") == 0
    assert fresh() == ("4", [5], (2, 3, 4, 5))
    assert tuner(BASE, GRID, "--seeds=6,") == 0
    assert fresh() == ("1", [6], (6,))


def test_a_row_without_a_choice_is_told_and_the_others_go_on(tuner, monkeypatch, capsys):
    losses(monkeypatch, **{"0.5": None, "1": math.nan, "2": None})
    assert tuner(BASE, SMALL, GRID) == 1
    out = capsys.readouterr().out
    assert f"tuned  {BASE}: no choice, none of the 3 points of its grid has a finite dev loss" in out
    assert [run for run in tuner.ran() if run[1] == 2] == [("table3/C/N=2+lr_factor=0.5@smoke", 2)]
    told = recorded(tuner.workdir)
    assert told["base"]["chosen"] is None
    assert set(told["base"]["points"].values()) == {"failed"}
    assert told["C/N=2"]["chosen"] == "C/N=2+lr_factor=0.5"
    losses(monkeypatch, **{"0.5": 3.0, "2": 2.0})  # what failed is tried again, and may change the choice
    assert tuner(BASE, SMALL, GRID) == 0
    assert recorded(tuner.workdir)["base"]["chosen"] == "base+lr_factor=2"


def test_a_point_whose_dev_loss_is_not_finite_is_not_chosen_and_named(tuner, monkeypatch, capsys, tmp_path):
    """Below any other, too, as minus infinity is; the runs are done all the same."""
    losses(monkeypatch, **{"0.5": -math.inf, "1": 1.5, "2": math.nan})
    assert tuner(BASE, GRID) == 0
    without = "; without a finite dev loss, and so not chosen: base+lr_factor=0.5, base+lr_factor=2\n"
    assert f"tuned  {BASE}: {LR}=1.0 of 0.5, 1.0, 2.0, dev loss 1.5000{without}" in capsys.readouterr().out
    assert recorded(tuner.workdir)["base"]["points"]["base+lr_factor=2"] == "failed"
    losses(monkeypatch, **dict.fromkeys(("0.5", "1", "2"), math.nan))
    assert tuner(BASE, GRID, f"--workdir={tmp_path / 'all'}") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("tuned"))
    assert line == f"tuned  {BASE}: no choice, none of the 3 points of its grid has a finite dev loss"


def test_a_later_launch_leaves_the_record_of_other_rows_and_fields(tuner):
    assert tuner(BASE, GRID) == 0
    assert tuner(SMALL, f"--tune={LR}=1,2") == 0
    assert tuner(BASE, "--tune=optim.warmup_steps=100,200") == 0
    (asked, small, other) = tuning.read(tuner.workdir / "table3@smoke")
    assert [one.row for one in (asked, small, other)] == ["base", "C/N=2", "base"]
    assert (asked.grid, small.grid) == ({LR: [0.5, 1.0, 2.0]}, {LR: [1.0, 2.0]})
    assert other.grid == {"optim.warmup_steps": [100, 200]}


@pytest.mark.parametrize(("hangs", "started"), [("1", 1), ("2", 4)])
def test_an_interrupted_tuning_goes_on_in_either_stage(tuner, tmp_path, hangs, started):
    script = tmp_path / "start.py"
    script.write_text(
        "import sys\nfrom launch import local, plan\n"
        f"command = lambda runs: [sys.executable, {str(tuner.script)!r}, *plan.arguments(runs)]\n"
        "sys.exit(local.main(command=command, prepare=lambda runs: None, report=lambda folders: None))\n"
    )
    given = [BASE, GRID, f"--workdir={tuner.workdir}", "--jobs=1"]
    process = subprocess.Popen([sys.executable, script, *given], env=os.environ | {"FAKE_HANG": hangs})
    while len(tuner.events()) < started:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert tuner(BASE, GRID) == 0
    assert len(tuner.ran()) == 4 + 1
    assert len(set(tuner.ran())) == 4


def test_a_launch_that_died_between_the_stages_goes_on(tuner, monkeypatch):
    carry_out, stages = local._carry_out, []

    def first_only(stage, *others):
        stages.append(stage.title)
        if len(stages) == 2:
            raise KeyboardInterrupt
        return carry_out(stage, *others)

    with monkeypatch.context() as patch:
        patch.setattr(local, "_carry_out", first_only)
        assert tuner(BASE, GRID) == 130
    assert len(tuner.ran()) == 3
    (tuner.workdir / "table3@smoke" / "tuning.json").unlink()  # the result files suffice
    assert tuner(BASE, GRID) == 0
    assert tuner.ran()[3:] == [("table3/base+lr_factor=2@smoke", 1)]
    assert len(tuner.ran()) == 4
    assert recorded(tuner.workdir)["base"]["chosen"] == "base+lr_factor=0.5"


def test_another_configuration_of_a_fresh_seed_is_refused_before_anything_starts(tuner, capsys):
    assert tuner(BASE, GRID) == 0
    (tuner.workdir / "table3@smoke" / "base+lr_factor=0.5" / "seed1" / "result.json").unlink()
    (tuner.workdir / "table3@smoke" / "base+lr_factor=0.5" / "seed1" / "config.json").unlink()
    for value in ("1", "2"):
        (tuner.workdir / "table3@smoke" / f"base+lr_factor={value}" / "seed1" / "result.json").unlink()
        (tuner.workdir / "table3@smoke" / f"base+lr_factor={value}" / "seed1" / "config.json").unlink()
    capsys.readouterr()
    fails(lambda: tuner(BASE, GRID, "--set=train.steps=1000"), capsys, "seed2 holds another configuration")
    assert len(tuner.ran()) == 4


def test_a_damaged_record_is_refused_before_anything_starts(tuner, capsys):
    folder = tuner.workdir / "table3@smoke"
    folder.mkdir(parents=True)
    for text in ("{", "[]", '{"rows": [{}]}', '{"rows": [{"variant": "a", "around": {}, "grid": {}, "seeds": []}]}'):
        (folder / "tuning.json").write_text(text)
        fails(lambda: tuner(BASE, GRID), capsys, "tuning.json is damaged; delete it")
    many = {f"f{i}": list(range(10)) for i in range(9)}
    told = {"variant": "base", "around": {}, "grid": many, "seeds": [2]}
    (folder / "tuning.json").write_text(json.dumps({"rows": [told]}))
    with pytest.raises(UserError, match="damaged"):
        reading.read([folder])
    assert tuner.ran() == []


def test_a_dry_run_prints_both_stages_and_starts_nothing(tuner, capsys):
    given = (BASE, GRID, "--seeds=2")
    assert tuner(*given, "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines.index(title) for title in ("grid:", "fresh seeds:")] == [0, 5]
    assert [line.split()[:3] for line in lines[2:5]] == [
        [f"table3/base+lr_factor={value}@smoke", "1", "pending"] for value in ("0.5", "1", "2")
    ]
    assert [line.split()[:5] for line in lines[7:]] == [
        ["table3/base@smoke,", "chosen", "point", seed, "pending"] for seed in "23"
    ]
    assert not tuner.workdir.exists()
    assert tuner(*given) == 0
    capsys.readouterr()
    assert tuner(*given, "--dry_run", "--stack") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[7:]] == [["table3/base+lr_factor=0.5@smoke", s, "done"] for s in "23"]
    assert len(tuner.ran()) == 5


# The table


def point(workdir, name, value, loss, seed=1, ppl=3.0, bleu=20.0, **changes):
    """A run of a point: of the grid where seed is 1."""
    variant = registry.parse(name).variant.name
    dev = {"split": "validation", "nll": loss, "ppl": ppl, "tokens": 7}
    folder = f"{variant}+lr_factor={str(value).removesuffix('.0')}"
    return put(workdir, name, seed, bleu=bleu, overrides={LR: value}, folder=folder, dev=dev, **changes)


def ask(workdir, *variants, values=(0.5, 1.0, 2.0), seeds=(2, 3)):
    folder = workdir / "table3@smoke"
    folder.mkdir(parents=True, exist_ok=True)
    asked = [Asked(variant, {}, {LR: list(values)}, seeds) for variant in variants]
    tuning.record(folder, [(one, dict.fromkeys(one.points)) for one in asked])


PPLS, BLEUS = {"base": (4.0, 4.3), "C/N=2": (6.0, 6.5)}, {"base": (20.0, 21.0), "C/N=2": (18.0, 18.5)}
GRIDS = {"base": (2.0, 1.4, 1.6), "C/N=2": (2.5, 2.2, 1.9)}


@pytest.fixture
def workdir(tmp_path):
    """Base, which chooses 1 of 0.5, 1, 2, and C/N=2, which chooses 2; base untuned; a plain grid's run."""
    ask(tmp_path, "base", "C/N=2")
    for variant, chosen in (("base", 1.0), ("C/N=2", 2.0)):
        name = f"table3/{variant}@smoke"
        for value, loss in zip((0.5, 1.0, 2.0), GRIDS[variant], strict=True):
            point(tmp_path, name, value, loss, ppl=99.0)
        for seed, ppl, bleu in zip((2, 3), PPLS[variant], BLEUS[variant], strict=True):
            point(tmp_path, name, chosen, 1.0, seed, ppl, bleu)
    for seed in (1, 2):
        put(tmp_path, BASE, seed, ppl=5.0 + seed, bleu=15.0)
    put(tmp_path, BASE, 1, overrides={"model.num_heads": 2}, folder="base+num_heads=2")
    return tmp_path


def table_of(workdir):
    (found,) = reading.read([workdir])
    return found, tuned_table.build(found)


def test_the_tuned_rows_are_read_over_their_fresh_seeds(workdir):
    table = table_of(workdir)[1]
    base, small = cells(table)["base"], cells(table)["C/N=2"]
    assert list(cells(table)) == ["base", "C/N=2"]
    assert (base["PPL paper"], base["BLEU paper"], small["PPL paper"]) == ("4.92", "25.8", "6.11")
    assert (base["lr_factor chosen"], small["lr_factor chosen"]) == ("1.0", "2.0 [1]")
    for row, ppls, bleus in ((base, PPLS["base"], BLEUS["base"]), (small, PPLS["C/N=2"], BLEUS["C/N=2"])):
        assert row["PPL tuned"] == f"{statistics.mean(ppls):.2f} ± {statistics.stdev(ppls):.2f}"
        assert row["BLEU tuned"] == f"{statistics.mean(bleus):.1f} ± {statistics.stdev(bleus):.2f}"
        assert row["runs"] == "2 done"
    assert (base["PPL untuned"], base["BLEU untuned"]) == ("6.50 ± 0.71", "15.0 ± 0.00")
    assert (base["ΔPPL tuned"], small["ΔPPL tuned"], small["ΔBLEU tuned"]) == ("", "+2.10", "(-2.2)")
    assert small["PPL untuned"] == ""
    for row, dev in ((base, GRIDS["base"]), (small, GRIDS["C/N=2"])):
        by_hand = np.minimum(dev, math.log(500)).mean() - min(dev)
        assert row["sensitivity nats"] == f"{by_hand:.3f}"
    assert dict(table.caption)["seeds"] == "2, 3"
    assert "[1] At the edge of its grid: a better value may lie beyond." in table.notes
    assert any("took 10 runs and 10.00 device hours" in note for note in table.notes)
    record = next(record for record in table.records if record["row"] == "C/N=2")
    assert (record["chosen"], record["at_edge"]) == (f"{LR}=2.0", LR)
    assert record["ppl"] == pytest.approx(statistics.mean(PPLS["C/N=2"]))
    assert record["files"].split() == [f"C/N=2+lr_factor=2/seed{seed}/result.json" for seed in (2, 3)]


def test_rows_left_out_have_their_part_in_what_is_said_of_those_shown(workdir):
    """Else another choice of rows would be another verdict."""
    whole = cells(table_of(workdir)[1])
    (found,) = reading.read([workdir], ["C/N=2"])
    table = tuned_table.build(found)
    assert cells(table) == {"C/N=2": whole["C/N=2"]}
    assert dict(table.caption)["seeds"] == "2, 3"
    assert any("took 5 runs and 5.00 device hours, not in the table of costs." in note for note in table.notes)
    assert [one.asked.row for one in tuned_table.read(found)] == ["base", "C/N=2"]
    _, chosen = pictures.of(found, {})[f"sensitivity {LR}"]
    assert {one["row"] for one in chosen} == {"C/N=2"}


def test_runs_that_a_plain_grid_has_too_are_told_apart_in_what_tuning_took(workdir):
    """Points of seeds 1 to 3, of which seed 1 alone is the tuning's as well, beside the fresh seeds of the one chosen.

    All of base's are in the table of costs then; none of C/N=2.
    """
    places = Asked("base", {}, {LR: [0.5, 1.0, 2.0]}, ()).points
    asked = [AskedRow(name, "base", place, {}, (1, 2, 3)) for name, place in places.items()]
    launches.record(workdir / "table3@smoke", asked, {"imports": []})
    for value, seed in itertools.product((0.5, 2.0), (2, 3)):
        point(workdir, BASE, value, 2.0, seed)
    _, table = table_of(workdir)
    said = "took 10 runs and 10.00 device hours, 5 of the runs in the table of costs too."
    assert [note for note in table.notes if said in note]


def test_differences_of_one_fresh_seed_are_said_to_be_of_unknown_noise(tmp_path):
    ask(tmp_path, "base", "C/N=2", seeds=(2,))
    for name, shift in ((BASE, 0.0), (SMALL, 1.0)):
        for value, loss in ((0.5, 2.0), (1.0, 1.4), (2.0, 1.6)):
            point(tmp_path, name, value, loss)
        point(tmp_path, name, 1.0, 1.4 + shift, 2, ppl=4.0 + shift)
    table = table_of(tmp_path)[1]
    assert cells(table)["C/N=2"]["ΔPPL tuned"] == "+1.00"
    assert differences_table.UNKNOWN in table.notes
    point(tmp_path, BASE, 1.0, 1.5, 3, ppl=4.1)
    ask(tmp_path, "base", seeds=(2, 3))
    table = table_of(tmp_path)[1]
    assert differences_table.UNKNOWN not in table.notes
    assert differences_table.SINGLE in table.notes


def test_points_without_a_finite_dev_loss_are_said(workdir):
    shutil.rmtree(workdir / "table3@smoke" / "base+lr_factor=2")
    point(workdir, BASE, 2.0, math.nan)
    row = cells(table_of(workdir)[1])["base"]
    assert row["runs"] == "2 done; 1 of the 3 points without a finite dev loss"
    assert row["lr_factor chosen"].startswith("1.0")


def test_the_untuned_table_has_no_point_of_a_tuning(workdir):
    (found,) = reading.read([workdir])
    listed = list(cells(main_table.build(found)))
    assert listed == [*(variant.name for variant in registry.variants("table3")), "base+num_heads=2"]
    assert cells(main_table.build(found))["base"]["PPL ours"] == "6.50 ± 0.71"
    assert {run.path.parent.name for row in found.all_rows for run in row.runs} >= {"base+lr_factor=0.5", "base"}
    wanted = {row.variant.name: found.seeds(row) for row in found.points}
    assert wanted["base+lr_factor=1"] == [1, 2, 3]
    assert wanted["base+lr_factor=2"] == [1]


def test_only_what_was_asked_for_is_taken_from_the_record(workdir):
    path = workdir / "table3@smoke" / "tuning.json"
    before = table_of(workdir)[1]
    told = json.loads(path.read_text())
    for row in told["rows"]:
        row |= {"chosen": "base+lr_factor=0.5", "at_edge": [], "points": {"base+lr_factor=0.5": -1.0}, "why": "so"}
    path.write_text(json.dumps(told))
    assert table_of(workdir)[1] == before


def test_without_the_record_the_points_are_those_of_a_plain_grid(workdir):
    (workdir / "table3@smoke" / "tuning.json").unlink()
    found, table = table_of(workdir)
    assert table.rows == ()
    assert "base+lr_factor=0.5" in cells(main_table.build(found))


def test_a_row_says_why_it_has_no_choice_or_not_all_of_its_runs(tmp_path):
    ask(tmp_path, "base", "C/N=2", "E", "D/P_drop=0.0")
    point(tmp_path, BASE, 0.5, 2.0)
    for value in ("0.5", "1", "2"):
        fail(tmp_path, f"C/N=2+lr_factor={value}", 1, "MemoryError: none")
        fail(tmp_path, f"E+lr_factor={value}", 1, "Diverged: the loss is nan at step 3") if value != "1" else None
    point(tmp_path, "table3/E@smoke", 1.0, 1.5)
    point(tmp_path, "table3/E@smoke", 1.0, 1.5, 2)
    point(tmp_path, "table3/D/P_drop=0.0@smoke", 0.5, 1.5)
    point(tmp_path, "table3/D/P_drop=0.0@smoke", 1.0, math.nan)
    fail(tmp_path, "D/P_drop=0.0+lr_factor=2", 1, "MemoryError: none")
    found = cells(table_of(tmp_path)[1])
    assert list(found) == ["base", "C/N=2", "D/P_drop=0.0", "E"]
    assert found["base"]["runs"] == "no choice: 2 of the 3 points of its grid not done"
    assert found["C/N=2"]["runs"] == "no choice: none of the 3 points of its grid has a finite dev loss"
    assert found["E"]["runs"].startswith("1 of 2 done, 1 missing; 2 of the 3 points failed [")
    assert found["D/P_drop=0.0"]["runs"].startswith("missing; 1 of the 3 points failed [")
    # What diverged counts as guessing; what failed otherwise leaves it open.
    assert found["E"]["sensitivity nats"] == f"{(2 * math.log(500) + 1.5) / 3 - 1.5:.3f}"
    assert [found[row]["sensitivity nats"] for row in ("base", "C/N=2", "D/P_drop=0.0")] == ["", "", ""]


def test_two_folders_may_share_a_table_but_not_a_row(workdir, tmp_path):
    other = tmp_path / "other"
    ask(other, "E")
    assert len(reading.read([workdir, other])[0].tunings) == 3
    ask(other, "base", values=(1.0, 2.0))
    with pytest.raises(UserError, match=r"base is tuned in .* and otherwise in .*; leave one out"):
        reading.read([workdir, other])


def test_the_report_prints_the_tuned_table_after_the_main_one_and_writes_it(workdir, capsys):
    assert experiments.main(["report", str(workdir)]) == 0
    out = capsys.readouterr().out
    titles = [line for line in out.splitlines() if line.startswith("table3@smoke")]
    assert [", each row tuned: " in title for title in titles] == [False, True]
    folder = workdir / "table3@smoke"
    assert "lr\\_factor" in (folder / "tuned.tex").read_text()
    assert "lr_factor chosen" in (folder / "tuned.md").read_text()
    assert len(list(csv.DictReader(io.StringIO((folder / "tuned.csv").read_text())))) == 2
    assert experiments.main(["report", str(workdir), "--show=tuned"]) == 0
    out = capsys.readouterr().out
    assert out.count("table3@smoke") >= 1
    assert out.startswith("table3@smoke, each row tuned: ")
    (folder / "tuning.json").unlink()
    assert experiments.main(["report", str(workdir)]) == 0
    assert "tuned" not in capsys.readouterr().out
