"""Provenance: the commit is this code's own, and what of the environment may change numbers is recorded or refused."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys

import handful
import jax
import numpy as np
import pytest
import tiny
from fabricated import put, table_of
from xla_flags import PLAIN_CODE, TWO_DEVICES

from tx import decode, evaluate, train
from tx.data import tokenized
from tx.errors import UserError
from tx.evaluation.translation import TranslatedSplit
from tx.files import to_json
from tx.runs import provenance
from tx.runs.run_dir import RunDir
from tx.runtime import determinism, environment
from tx.runtime.signals import Interrupted
from tx.runtime.trees import stack
from tx.training import experiment, loop, outcome, reevaluation

SETTINGS = {"model.vocab_size": handful.VOCAB_SIZE, "train.steps": 2, "model.num_layers": 1, "decode.beam": 1}
SIMULATED = f"{TWO_DEVICES} {PLAIN_CODE}"  # as tests have it


def git(folder, *arguments):
    named = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    command = ["git", "-C", str(folder), *named, *arguments]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(command, env=plain, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of its own that holds this code, or what counts for it here."""
    folder = tmp_path / "checkout"
    file = folder / "tx" / "runs" / "provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    monkeypatch.setattr(provenance, "__file__", str(file))
    return folder


def test_the_commit_is_that_of_the_repository_that_tracks_the_code(checkout):
    commit = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert provenance.revision() == commit
    (checkout / "tx" / "runs" / "new.py").touch()
    assert provenance.revision() == f"{commit}+"


def test_no_variable_names_another_repository(checkout, tmp_path, monkeypatch):
    wanted, other = provenance.revision(), tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-qm", "another", "--allow-empty")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert provenance.revision() == wanted


def test_a_repository_around_an_installed_copy_says_nothing_of_it(checkout, monkeypatch):
    copy = checkout / "site-packages"
    shutil.copytree(checkout / "tx", copy / "tx")
    monkeypatch.setattr(provenance, "__file__", str(copy / "tx" / "runs" / "provenance.py"))
    assert provenance.revision() == ""
    (checkout / ".gitignore").write_text("site-packages\n")
    assert provenance.revision() == ""


def recorded(monkeypatch, variables, **options):
    for name in [name for name in os.environ if name.startswith("JAX_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return environment.recorded(**options)


@pytest.mark.parametrize(
    ("variables", "kept"),
    [
        ({}, []),
        ({"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}, ["XLA_FLAGS"]),
        ({"LIBTPU_INIT_ARGS": "--a", "JAX_NUM_CPU_DEVICES": "4"}, ["JAX_NUM_CPU_DEVICES", "LIBTPU_INIT_ARGS"]),
        ({"NVIDIA_TF32_OVERRIDE": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}, ["NVIDIA_TF32_OVERRIDE"]),
        ({"JAX_COMPILATION_CACHE_DIR": "d", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1", "JAXLESS": "1"}, []),
    ],
)
def test_what_is_set_is_recorded_and_nothing_else(monkeypatch, variables, kept):
    assert recorded(monkeypatch, variables) == {name: variables[name] for name in kept}


def test_what_the_project_sets_itself_is_not_recorded(monkeypatch):
    assert recorded(monkeypatch, {"XLA_FLAGS": "--xla_one"}) == {"XLA_FLAGS": "--xla_one"}
    monkeypatch.setenv("PJRT_NPROC", os.environ.get("PJRT_NPROC", ""))
    determinism.fix(tiny.config(parallel__deterministic=True).parallel)
    assert environment.recorded(deterministic=True) == {"XLA_FLAGS": "--xla_one"}
    monkeypatch.setenv("XLA_FLAGS", determinism.DETERMINISTIC)
    assert environment.recorded(deterministic=True) == {}
    assert environment.recorded() == {"XLA_FLAGS": determinism.DETERMINISTIC}  # then it was somebody else


@pytest.mark.slow
def test_a_result_says_what_was_set_and_how_many_devices_it_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenized, "prepare", lambda *_: handful.prepared())
    config = tiny.config(**{name.replace(".", "__"): value for name, value in SETTINGS.items()})
    for name in [name for name in os.environ if name.startswith("JAX_")]:
        monkeypatch.delenv(name)
    found = []
    for number, flags in enumerate((SIMULATED, "")):
        monkeypatch.setenv("XLA_FLAGS", flags)
        run = RunDir(tmp_path / str(number))
        experiment.run_experiments([(config, run)])
        found.append(run.read_result())
    assert jax.device_count() == 2
    assert [result.device.count for result in found] == [1, 1]
    assert [result.environment for result in found] == [{"XLA_FLAGS": SIMULATED}, None]
    assert "environment" not in found[1].to_dict()
    assert RunDir(tmp_path / "0").read("config")["environment"] == {"XLA_FLAGS": SIMULATED}
    assert provenance.describe(tiny.config(parallel__devices=0))["device"]["count"] == 2
    assert provenance.describe(tiny.config(parallel__devices=2))["device"]["count"] == 2


# What trained a run is not always what translates it.

SHORT = {"train.steps": 4, "train.log_every": 2, "train.eval_every": 4, "train.checkpoint_every": 2}


def short(**diff):
    return tiny.config(**{name.replace(".", "__"): value for name, value in (SETTINGS | SHORT).items()}, **diff)


@pytest.fixture
def make(monkeypatch):
    """Makes runs that learn nothing; `preempted` is called before each step and before a run is translated."""
    assert jax.device_count() == 2  # JAX has read XLA_FLAGS by now
    scores = dict.fromkeys(("bleu", "chrf", "bleu_tokenized", "bleu_compound", "bleu_lower", "exact_match"), 0.0)
    dev = {"nll": 1.0, "ppl": 2.7, "tokens": 9, "nll_without_source": 2.0}

    def make(*runs, flags="", preempted=lambda step, seed: None):
        def steps(*configs):
            told = stack([tiny.metrics()] * len(configs), np.stack)

            def step(state, batch):
                preempted(int(np.max(state.step)), None)
                return dataclasses.replace(state, step=state.step + 1), told

            return step

        def translate(config, *_):
            preempted(None, config.train.seed)
            return {config.decode.splits: TranslatedSplit(scores | {"signature": ""}, [], [], [])}

        monkeypatch.setattr(tokenized, "prepare", lambda *_: handful.prepared(copies=2))
        monkeypatch.setattr(loop, "make_step_over_devices", steps)
        monkeypatch.setattr(loop, "make_eval", lambda config, batches, count: lambda params: [dev] * count)
        for module in (experiment, reevaluation):
            monkeypatch.setattr(module, "measure_dev", lambda config, data, params: [dev] * len(params))
        monkeypatch.setattr(outcome, "evaluate_translations", translate)
        monkeypatch.setenv("XLA_FLAGS", flags)
        with contextlib.suppress(Interrupted):
            experiment.run_experiments(runs)
        return [run.read_result() if run.result.exists() else None for _, run in runs]

    return make


def set_flags(one):
    return (one.environment or {}).get("XLA_FLAGS")


def at(*where):
    """Interrupts at a step, or where the run of a seed is to be translated: (step, seed), one of them None."""

    def preempted(*here):
        if here == where:
            raise Interrupted("preempted")

    return preempted


@pytest.mark.parametrize(
    ("when", "trained", "wanted"),
    [
        ((None, 1), (2, SIMULATED), [(1, 2, SIMULATED), (5, 1, None)]),
        ((2, None), (1, None), [(1, 2, SIMULATED), (3, 1, None)]),
    ],
    ids=("translating", "training"),
)
def test_a_result_says_what_trained_it_and_hours_are_of_the_devices_of_each_stretch(
    make, tmp_path, when, trained, wanted
):
    run = RunDir(tmp_path)
    assert make((short(parallel__devices=0), run), flags=SIMULATED, preempted=at(*when)) == [None]
    (result,) = make((short(parallel__devices=1), run))
    assert (result.device.count, set_flags(result)) == trained
    assert [(one.step, one.device.count, set_flags(one)) for one in result.origins] == wanted
    first, second = (one.seconds for one in result.origins)
    assert min(first, second) > 0
    assert first + second == pytest.approx(result.timing.train_s)
    assert 3600 * result.device_hours == pytest.approx(2 * first + second + result.timing.decode_s)


def test_one_of_a_stack_that_is_translated_later_was_trained_beside_the_others(make, tmp_path):
    runs = [(short(train__seed=seed), RunDir(tmp_path / str(seed))) for seed in (1, 2)]
    first, second = make(*runs, preempted=at(None, 2))
    assert (first.timing.stacked, second) == (2, None)
    again, second = make(*runs)
    assert again == first
    assert (second.timing.stacked, second.origins) == (2, None)


def test_parameters_that_were_trained_elsewhere_say_so(make, tmp_path, monkeypatch):
    """Another number of threads or devices is no other training, and no reason to refuse them."""
    run = RunDir(tmp_path / "trained")
    (trained,) = make((short(), run), flags=SIMULATED)

    def taken(name, **diff):
        other = RunDir(tmp_path / name)
        reevaluation.evaluate_with_trained_params(short(**diff), other, run)
        return other.read_result()

    assert taken("alike", decode__alpha=1.0).origins is None
    monkeypatch.setattr(provenance, "processor", lambda: "Another")
    monkeypatch.setenv("XLA_FLAGS", "")
    result = taken("elsewhere", decode__alpha=1.0, parallel__devices=2, parallel__threads=2)
    assert (result.device.kind, result.device.count, set_flags(result)) == ("Another", 2, None)
    (origin,) = result.origins
    assert (origin.step, origin.device, set_flags(origin)) == (1, trained.device, SIMULATED)
    assert (origin.versions, origin.program["mode"], origin.seconds) == (trained.versions, "jit", None)
    assert 3600 * result.device_hours == pytest.approx(2 * result.timing.decode_s)


def test_a_table_says_where_anything_was_set(tmp_path):
    put(tmp_path, "table3/base@smoke", 1)
    assert "environment" not in dict(table_of(tmp_path).caption)
    put(tmp_path, "table3/E@smoke", 1, environment={"XLA_FLAGS": "--fast"})
    assert dict(table_of(tmp_path).caption)["environment"] == "XLA_FLAGS=--fast (1 run), nothing set (1 run)"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_default_prng_impl", "rbg"),
        ("jax_default_matmul_precision", "bfloat16"),
        ("jax_threefry_partitionable", False),
        ("jax_random_seed_offset", 7),
    ],
)
def test_other_types_and_draws_are_refused(name, value):
    before = getattr(jax.config, name)
    environment.refuse_other_numbers()
    try:
        jax.config.update(name, value)
        with pytest.raises(UserError, match=f"{name.upper()}={value} is set"):
            environment.refuse_other_numbers()
    finally:
        jax.config.update(name, before)


@pytest.mark.parametrize("command", [train, evaluate, decode])
def test_every_command_refuses_them_before_anything(command, tmp_path, monkeypatch, capsys):
    def refuse():
        raise UserError("refused")

    monkeypatch.setattr(environment, "refuse_other_numbers", refuse)
    run = RunDir(tmp_path)
    run.config.write_text(to_json({"config": tiny.config().to_dict()}))
    with pytest.raises(SystemExit) as caught:
        command.main([str(run.path)])
    assert (caught.value.code, capsys.readouterr().err) == (2, "error: refused\n")


def test_a_variable_is_refused_in_one_line(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    run.config.write_text(to_json({"config": tiny.config().to_dict()}))
    variables = {"JAX_ENABLE_X64": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tx.train", str(run.path)]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: JAX_ENABLE_X64=True is set: ")
