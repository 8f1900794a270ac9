"""The command `tx`: the same mains as `python -m`, the same errors, nothing slow before it is needed; completion."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tomllib

import fabricated
import pytest

from launch import command

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_the_installed_script_is_this_one():
    script = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]["tx"]
    module, _, name = script.partition(":")
    assert getattr(importlib.import_module(module), name) is command.main


def outcome(call, capsys):
    """(exit status, standard output, standard error) of a command."""
    capsys.readouterr()
    try:
        status = call() or 0
    except SystemExit as ended:
        status = ended.code
    return status, *capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "module", "arguments", "status"),
    [
        ("launch", "launch.local", ["table3@smok"], 2),
        ("launch", "launch.local", ["table3@smoke", "--only=base", "--dry_run", "--workdir=/nowhere"], 0),
        ("launch", "launch.local", ["--help"], 0),
        ("status", "launch.local --status", ["/nowhere"], 2),
        ("status", "launch.local --status", ["{}"], 0),
        ("list", "experiments.__main__ list", ["table3@smoke"], 0),
        ("list", "experiments.__main__ list", ["tabel3"], 2),
        ("report", "experiments.__main__ report", ["/nowhere"], 2),
        ("compare", "experiments.__main__ compare", ["/nowhere"], 2),
        ("transfer", "experiments.__main__ transfer", ["tabel3"], 2),
        ("figures", "experiments.__main__ figures", ["/nowhere"], 2),
        ("table1", "experiments.__main__ table1", ["--lengths=x"], 2),
        ("train", "tx.train", ["--workdir=/nowhere"], 2),
        ("translate", "tx.decode", ["/nowhere", "/nowhere/text"], 2),
        ("evaluate", "tx.evaluate", ["/nowhere"], 2),
        ("export", "tx.export", ["/nowhere", "--out=/nowhere/x"], 2),
        ("bench", "experiments.bench.__main__", ["tabel"], 2),
    ],
)
def test_a_command_is_that_of_the_module(capsys, tmp_path, name, module, arguments, status):
    fabricated.put(tmp_path, "table3/base@smoke", 1)
    arguments = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    module, *first = module.split()
    there = importlib.import_module(module)
    found = outcome(lambda: command.main([name, *arguments]), capsys)
    assert found == outcome(lambda: there.main([*first, *arguments]), capsys)
    assert found[0] == status
    assert (found[2].startswith("error: "), found[2].count("\n")) == ((True, 1) if status else (False, 0))


@pytest.mark.parametrize(
    ("name", "arguments", "short"),
    [
        ("train", ["--workdir=/nowhere"], "--imp=x.py"),
        ("translate", ["/nowhere", "/nowhere/text"], "--imp=x.py"),
        ("list", ["table3@smoke"], "--imp=x.py"),
        ("launch", ["table3@smoke", "--dry_run"], "--work=/nowhere"),
        ("plan", ["table3@smoke", "--device=h100"], "--onl=base"),
    ],
)
def test_no_option_is_abbreviated(capsys, name, arguments, short):
    """--import is read beside the parsers, and engines hand on what theirs has not taken."""
    status, out, error = outcome(lambda: command.main([name, *arguments, short]), capsys)
    assert (status, out) == (2, "")
    assert error.startswith(f"error: unrecognized arguments: {short}; ")


def test_every_command_is_there():
    for name, one in command.COMMANDS.items():
        module = importlib.import_module(one.module)
        assert callable(module.main), name
        assert f"  {name} " in command.usage()


def test_help_loads_nothing_slow():
    code = "import sys; from launch.command import main; main(['--help']); print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split()[0] for line in said if line.startswith("  ")] == list(command.COMMANDS)
    ours = {name for name in said[-1].split() if name.partition(".")[0] in ("tx", "experiments", "launch")}
    assert ours == {"tx", "tx.errors", "tx.streams", "launch", "launch.command"}
    assert not {"jax", "numpy", "rich", "ml_collections", "argcomplete"} & set(said[-1].split())


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help(capsys, arguments):
    assert outcome(lambda: command.main(arguments), capsys) == (0, f"{command.usage()}\n", "")


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["runs", "--help"]])
def test_help_on_the_state_of_runs(capsys, arguments):
    status, said, error = outcome(lambda: command.main(["status", *arguments]), capsys)
    assert (status, error) == (0, "")
    assert said.startswith("usage: tx status DIR")


def test_the_state_of_nothing(capsys):
    status, _, error = outcome(lambda: command.main(["status"]), capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert error.endswith("; python -m launch.local --help lists the arguments\n")


def test_an_unknown_command(capsys):
    status, _, error = outcome(lambda: command.main(["lst"]), capsys)
    assert (status, error) == (2, "error: no command 'lst'; the nearest is 'list'; tx --help lists them\n")


# What the last word of a line may be; whether there is more.
LINES = [
    ("tx la", ["launch "], False),
    ("tx launch table3@smoke --on", ["--only "], False),
    ("tx launch table3@smo", ["smoke "], False),  # bash takes what stands behind the @ for a word of its own
    ("tx launch tab", ["table3@smoke", "table1@recall"], True),
    ("tx launch table3/C/N=2@m", ["multi30k "], False),
    ("tx launch table3/E", ["table3/E@smoke", "table3/E@paper"], True),
    ("tx launch table3@smoke --only C/N", ["C/N=2", "C/N=4", "C/N=8"], False),
    ("tx launch table3@smoke --set optim.war", ["optim.warmup_steps="], False),
    ("tx launch table3@smoke --grid model.num_h", ["model.num_heads="], False),
    ("tx launch table3@smoke --set model.norm=p", ["post", "pre"], False),
    ("tx launch table3@smoke --grid model.positions=alibi,l", ["alibi,learned "], False),
    ("tx launch table3@smoke --set model.tie=", [""], False),
    ("tx launch table3@smoke --set model.scale_embedding=f", ["false "], False),
    ("tx launch table3@smoke --match ", ["params "], False),
    ("tx list add_n", ["add_norm@smoke", "add_norm@paper"], True),
    ("tx transfer add_n", ["add_norm "], False),
    ("tx report --show=agreement_", ["agreement_steps "], False),
    ("tx launch table3@smoke --set 'optim.war", ["optim.warmup_steps="], False),
]
ASKED = """
import json, os, sys
from launch import command, completion
for line in json.loads(sys.argv[1]):
    read, write = os.pipe()
    if not os.fork():  # argcomplete ends the process
        os.dup2(write, 8)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 9)
        os.environ.update(_ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)), COMP_TYPE="9")
        command.main()
    os.close(write)
    print(json.dumps(os.fdopen(read).read()), flush=True)  # else the next child ends with it in its buffer, too
    os.wait()
"""


@pytest.fixture(scope="module")
def completed():
    """{line: what the shell is told that its last word may be}, on descriptor 8, as argcomplete's function has it."""
    shell = {"_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'@><=;|&(:"}
    lines = [line for line, *_ in LINES]
    asked = [sys.executable, "-c", ASKED, json.dumps(lines)]
    done = subprocess.run(asked, env=os.environ | shell, capture_output=True, text=True, check=True)
    return dict(zip(lines, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(("line", "wanted", "more"), LINES)
def test_what_a_word_may_be(completed, line, wanted, more):
    found = completed[line].split("\n")
    assert set(wanted) <= set(found) if more else found == wanted


def test_modules_are_found_where_python_m_finds_them(tmp_path, monkeypatch, capsys):
    """In the folder that a command is started in: the processes of runs look there too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *(path for path in sys.path if path)])
    assert command.main(["list", "table3@smoke"]) == 0
    assert sys.path[:2] == [str(tmp_path), str(ROOT)]
    capsys.readouterr()


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    gone = tmp_path / "gone"
    start = f"import os, sys; os.chdir({str(gone)!r}); os.rmdir(os.getcwd()); from launch import command; "
    for arguments in ["launch", "table3/base@smoke", "--dry_run"], ["launch", "table3/base@smoke", "--workdir=runs"]:
        gone.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", f"{start}sys.exit(command.main({arguments}))"],
            env=os.environ | {"PYTHONPATH": str(pathlib.Path(command.__file__).parents[1])},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert done.stderr.endswith("the folder that this was started in is gone; start from another\n")
        assert len(done.stderr.splitlines()) == 1
