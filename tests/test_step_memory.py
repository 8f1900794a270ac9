"""Memory of a step by its compiler: which Python compiles, each program once, and what a plan says of it."""

import re
import subprocess
import sys

import pytest
import tiny

from experiments.bench import step_memory
from experiments.bench.contestants import tx_compiled
from experiments.bench.harness import compilers
from launch import forecast
from launch.plan import __main__ as command
from tx.errors import UserError

GIB = 2**30
INSTALL = "no compiler for v5e is installed: pip install -e '.[tpu]' in the checkout, or make compile-venv"


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """(method, devices, d_model) of every question to a compiler that stands for libtpu.

    The width and the devices make the program. It takes a GiB for each 16 of the width; over 256 it is refused.
    """
    questions = []

    class Compiler:
        def __init__(self, label, served, arguments, threads, python):
            assert served == "contestants.tx_compiled:Compiled"
            assert arguments["config"]["parallel"]["devices"] == arguments["devices"]
            self.width, self.devices = arguments["config"]["model"]["d_model"], arguments["devices"]

        def __call__(self, method):
            questions.append((method, self.devices, self.width))
            if self.width % 16:
                raise RuntimeError(f"it broke off with status 1:\nwhy\n  a width of {self.width}\n\n")
            program = {"digest": f"{self.width} over {self.devices}"}
            return program if method == "program" else {"bytes": self.width / 16 * GIB, "refused": self.width > 256}

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731

    monkeypatch.setattr(step_memory, "Contestant", Compiler)
    monkeypatch.setattr(compilers, "_installed", lambda python: {"libtpu": "0.1", "jax": "0.2"})
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(compilers.VARIABLE, raising=False)
    return questions


def found(devices=1, **diff):
    return step_memory.step_memory(tiny.config(**diff), target="v5e", devices=devices)


def test_a_program_is_compiled_once_and_known_configurations_are_not_even_traced(asked):
    first = found()
    assert first == step_memory.StepMemory(GIB, True, "16 over 1", "libtpu 0.1")
    assert asked == [("program", 1, 16), ("memory", 1, 16)]
    assert found(train__seed=5, decode__beam=2) == first
    assert len(asked) == 2
    assert found(loss__label_smoothing=0.3) == first  # another configuration, the same program
    assert asked[2:] == [("program", 1, 16)]
    found(devices=4)
    assert asked[3:] == [("program", 4, 16), ("memory", 4, 16)]


@pytest.mark.parametrize(("field", "value"), [("train__remat", True), ("train__steps_per_dispatch", 5)])
def test_what_says_how_a_step_is_computed_makes_another_program(asked, field, value):
    found()
    found(**{field: value})
    assert [method for method, *_ in asked] == [
        "program",
        "memory",
        "program",
    ]  # the stand-in makes one program of both


@pytest.mark.parametrize("what", ["tools", "flags", "code"])
def test_another_compiler_flags_or_code_are_asked_anew(asked, monkeypatch, what):
    found()
    if what == "tools":
        monkeypatch.setattr(compilers, "_installed", lambda python: {"libtpu": "0.1", "jax": "0.3"})
    elif what == "flags":
        monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_one")
    else:
        monkeypatch.setattr(step_memory, "_code", lambda: ["other"])
    found()
    # Other code that comes to the same program needs no compilation.
    assert [method for method, *_ in asked[2:]] == (["program"] if what == "code" else ["program", "memory"])


def test_a_compiler_for_tpus_says_itself_what_fits(asked):
    assert found(model__d_model=256).fits  # 16 GiB, and the data sheet says 16e9 bytes
    assert not found(model__d_model=512).fits


def test_what_breaks_off_is_no_answer(asked):
    for _ in range(2):
        with pytest.raises(UserError, match=r"^the compiler for v5e broke off: a width of 20$"):
            found(model__d_model=20)
    assert len(asked) == 2  # nothing of it was kept


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("Ran out of memory in memory space hbm. Used 22.35G of 15.75G hbm. Exceeded", 22.35 * GIB),
        ("Used 512.0M of 1.0G hbm", 2**29),
        ("Out of memory", None),
    ],
)
def test_what_a_refused_program_would_take(message, size):
    assert tx_compiled.used(message) == size


def test_which_python_compiles(monkeypatch, tmp_path):
    there = {sys.executable: {}, str(tmp_path / ".venv-compile/bin/python"): {"libtpu": "1"}, "/named": {"libtpu": "2"}}
    monkeypatch.setattr(compilers, "_installed", lambda python: there.get(python, {}))
    monkeypatch.setattr(compilers, "ROOT", tmp_path)
    monkeypatch.delenv(compilers.VARIABLE, raising=False)
    assert compilers.python("v5e") == str(tmp_path / ".venv-compile/bin/python")
    there[sys.executable] = {"libtpu": "3"}
    assert compilers.python("v5e") == sys.executable
    with pytest.raises(UserError, match=r"^no compiler for h100 is installed: make compile-venv$"):
        compilers.python("h100")
    monkeypatch.setenv(compilers.VARIABLE, "/named")
    assert compilers.python("v5e") == "/named"
    for none in ("", "/nowhere"):
        monkeypatch.setenv(compilers.VARIABLE, none)
        with pytest.raises(UserError, match=f"^{re.escape(INSTALL)}$"):
            compilers.python("v5e")


def test_the_versions_are_those_of_the_python_that_is_named():
    own = compilers._installed(sys.executable)
    asked = subprocess.run([sys.executable, "-c", compilers._ASK], capture_output=True, text=True, check=True)
    assert compilers.from_json(asked.stdout) == own
    assert compilers.toolchain(sys.executable)["jax"] == own["jax"]
    assert compilers._installed("/nowhere/python") == {}


def planned(capsys, tmp_path, *arguments):
    """(what is said before the table, {row: its cells}, the notes)."""
    assert command.main([*arguments, "--mfu=0.3", f"--workdir={tmp_path / 'runs'}"]) == 0
    out = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(out) if line.lstrip().startswith("row "))
    end = next(i for i, line in enumerate(out) if line.startswith("in all: "))
    cells = [re.split(r"\s{2,}", line.strip()) for line in out[head + 1 : end]]
    return out[:head], {row[0]: row[1:] for row in cells}, [line for line in out if line.startswith("note: ")]


def test_a_plan_says_what_the_compiler_does(asked, capsys, tmp_path):
    rows = ["table3/base@smoke", "table3/D/P_drop=0.2@smoke", "table3/C/d_model=1024@smoke", "--device=v5e-4"]
    said, cells, notes = planned(capsys, tmp_path, *rows)
    widths = {width for _, _, width in asked}
    assert len(widths) == 2
    assert said == [
        f"{verb} {name} for 4 v5e"
        for name, verbs in zip(rows, (("tracing", "compiling"), ("tracing",), ("tracing", "compiling")), strict=False)
        for verb in verbs
    ]
    assert {tuple(row[4:6]) for row in cells.values()} == {(f"{width / 16:.1f} GiB", "yes") for width in widths}
    assert "by the compiler's analysis of the training step: libtpu 0.1" in " ".join(notes)
    assert "estimate" not in " ".join(notes)
    said, again, _ = planned(capsys, tmp_path, *rows)
    assert (said, again) == ([], cells)
    _, cells, notes = planned(capsys, tmp_path, *rows, "--estimate")
    assert all(row[4].startswith("~") for row in cells.values())
    assert notes[-1] == "note: memory with ~ is an estimate"


def test_a_plan_without_a_compiler_says_what_to_install(asked, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv(compilers.VARIABLE, "")
    _, cells, notes = planned(capsys, tmp_path, "table3/base@smoke", "--device=v5e")
    size = forecast.memory_bytes(command.tuning.registry.get_config("table3/base@smoke"), 1)
    assert cells["table3/base@smoke"][4:6] == [f"~{size / 2**20:.0f} MiB", "yes"]
    assert notes[-1] == f"note: memory with ~ is an estimate; {INSTALL}"
    _, _, notes = planned(capsys, tmp_path, "table3/base@smoke", "--device=l4")
    assert notes[-1].endswith("nothing here compiles for l4, only for h100, h200, v5e")
