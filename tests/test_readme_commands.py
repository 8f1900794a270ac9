"""Every command of the pages: run here, run by a test that is named, or with a reason why no test runs it."""

import importlib.util
import pathlib
import re
import shlex

import pytest

from experiments import __main__ as experiments_command
from launch import local
from launch.command import COMMANDS
from tx import cli, plugins

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ("", "tx/", "experiments/", "experiments/results/", "experiments/bench/", "launch/")
START = re.compile(rf"(python -m|make |pip |TX_\w+=|\.\.\. |tx ({'|'.join(COMMANDS)})\b)")
PLACES = {
    "DIR": "runs",
    "DIR...": "runs",
    "DIR_A": "runs",
    "DIR_B": "runs",
    "SWEEP@SCALE": "table3@smoke",
    "FILE": "page.md",
}

WALK = "test_extensions.py::test_the_walk_through_as_written"
SWEPT = "test_extensions.py::test_an_optimizer_with_a_field_swept_as_written"
MEASURED = "test_extensions.py::test_a_metric_as_written"
WHOLE = "test_end_to_end.py::"  # a sweep from text to table

OWN_TEXT = "test_extensions.py::test_the_walk_through_of_own_text_as_written"

ELSEWHERE = {  # by their beginning
    "make smoke": ".ci/run",
    "make test": ".ci/run",
    "python -m launch.local near@smoke --import near.py --seeds": "test_extensions.py::test_an_ablation_as_the_first",
    "python -m launch.local near@smoke --import near.py --workdir": WALK,
    "python -m launch.local table3@smoke --only=base --set data.corpus": OWN_TEXT,
    "python -m launch.local table3@mine": OWN_TEXT,
    "python -m experiments list table3@mine": OWN_TEXT,
    "python -m tx.decode own/table3@smoke/base": OWN_TEXT,
    "python -m experiments list warmup@paper --import": WALK,
    "python -m experiments report near": WALK,
    "python -m experiments report DIR --html": "test_page.py::test_the_command_writes_and_names_it",
    "python -m experiments report DIR --serve": "test_page_in_browser.py::test_a_served_page_follows_its_runs",
    "python -m experiments list --fields --import": SWEPT,
    "python -m launch.local table3/base@smoke --import signum.py": SWEPT,
    "python -m experiments report swept": SWEPT,
    "python -m launch.local table3/base@smoke --import poly.py": "test_extensions.py::test_a_loss_as_written",
    "python -m launch.local table3/base@smoke --import repeats.py": MEASURED,
    "python -m experiments compare measured": MEASURED,
    "python -m tx.evaluate near/near@smoke": WALK,
    "python -m tx.train --config=experiments/config.py:table3/A": WHOLE + "test_another_decoding_takes",
    "python -m tx.train RUN_DIR": WHOLE + "test_a_sweep_leaves_results_and_a_table",
    "python -m tx.check": "test_gradient_check.py::test_the_command_as_started",
    "python -m tx.decode RUN": WHOLE + "test_a_trained_run_translates",
    "python -m tx.export RUN": WHOLE + "test_exported_parameters_are_read_back_equal",
    "python -m tx.evaluate RUN": WHOLE + "test_a_trained_run_scores_again",
    "python -m tx.data.builders wmt14_translate/de-en": "test_wmt.py::test_wmt14_prepared_with_tensorflow",
    "python -m experiments figures RUN": WHOLE + "test_pictures_of_a_trained_run",
    "python -m experiments table1": "test_mixing.py::test_the_command_writes_table_and_plot",
    "python -m experiments report experiments/results --readme": "test_report_files.py::test_this_projects_pages",
    "TX_COORDINATOR=": "test_parallel.py::test_two_processes_train_what_one_does",
    "python -m experiments.bench table": "test_bench.py::test_the_table_says_where_a_peer_is_faster",
    "python -m experiments.bench train --size=multi30k": "test_bench.py::test_commands_with_a_peer_measure",
    "python -m experiments.bench decode": "test_bench.py::test_ctranslate2_translates_as_ours_does",
    "python -m experiments.bench seeds --size=smoke": "test_bench.py::test_seeds_are_run_stacked_one_by_one",
    "python -m experiments.bench guards": "test_bench.py::test_the_loop_trains_with_its_guards",
    "python -m experiments.bench packing": "test_bench.py::test_batches_are_packed_ahead_and_by_one_thread",
    "python -m launch.slurm": "engines/test_slurm.py::test_an_array_makes_each_run_once",
    "python -m launch.ray": "engines/test_ray.py::test_a_cluster_is_started_where_there_is_none",
    "make compile-venv": "test_compiled.py::test_a_step_stays_within_its_bounds",
    "python -m experiments.bench compile": "test_compiled.py::test_a_step_stays_within_its_bounds",
    "python -m launch.gpu --help": "test_gpu.py::test_everything_is_timed_trained_and_packed",
    "python -m launch.gpu.take": "test_gpu.py::test_a_result_is_put_in_its_place",
    "python -m launch.plan table3@paper --device=h100": "test_plan.py::test_hours_and_memory_are_what_was_measured",
    "python -m launch.plan table2@paper table2@paper.en-fr": "test_plan.py::test_table2_in_all",
    "python -m launch.verify DIR": "test_verify.py::test_what_is_damaged_is_named",
    "make gpu-bundle": "test_gpu.py::test_text_comes_out_of_the_bundle",
    "make gpu-take": "test_gpu.py::test_a_result_is_put_in_its_place",
    "make gpu": "test_gpu.py::test_everything_is_timed_trained_and_packed",
}
UNTESTED = {
    "pip install": "takes what is not needed here from the network",
    "python -m experiments.bench memory": "holds the paper's base several times, for minutes",
    "python -m experiments.bench train --platform=gpu": "needs a GPU",
    "python -m experiments.bench seeds --platform=gpu": "needs a GPU",
    "python -m experiments.bench attention --platform=gpu": "needs a GPU; on a CPU in test_attention_grid.py",
    "python -m tx.train --config=experiments/config.py:table3/b": "needs eight devices; small in test_parallel.py",
}


def commands():
    """The commands of all pages in their order, each once, those of `tx` as Python's; generated tables are left out."""
    found = []
    for page in PAGES:
        text = (ROOT / page / "README.md").read_text(encoding="utf-8")
        text = re.sub(r"<!-- table:.*?<!-- end table -->", "(a table)", text, flags=re.DOTALL)
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        lines = [line.partition(" #")[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        spans = re.findall(r"`([^`]*)`", re.sub(r"^```\w*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
        found += [" ".join(one.split()) for one in lines + spans if START.match(one)]
    return list(dict.fromkeys(map(as_python, found)))


def as_python(line):
    """A command of `tx` as that of the module which it hands over to."""
    start, _, rest = line.partition(" ")
    if start != "tx":
        return line
    name, _, arguments = rest.partition(" ")
    module, first, _ = COMMANDS[name]
    return " ".join(["python -m", module.removesuffix(".__main__"), *first, arguments]).strip()


NAMES_ALONE = {as_python(f"tx {name}") for name in COMMANDS if name != "list"}  # a program is spoken of


def beginning(command, table):
    """The longest key that the command begins with."""
    return max((key for key in table if command.startswith(key)), key=len, default=None)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with a sweep's results in runs/ and a page to renew."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/table3@smoke").symlink_to(ROOT / "experiments/results/table3@smoke")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", commands())
def test_a_command_of_a_page_is_tested(command, place, capsys):
    if command in NAMES_ALONE:
        return
    other, reason = beginning(command, ELSEWHERE), beginning(command, UNTESTED)
    if max(other or "", reason or "", key=len):
        assert not (other and reason and other == reason)
        if len(other or "") > len(reason or ""):
            file, _, test = ELSEWHERE[other].partition("::")
            there = ROOT / file if file.startswith(".") else ROOT / "tests" / file
            assert (f"def {test}" if test else command.split()[1]) in there.read_text(encoding="utf-8")
        return
    if command.startswith("... "):  # more of the launch before it in the table of uses
        command = command.removeprefix("... ").removeprefix("table3@smoke ")
        command = f"python -m launch.local table3@smoke --workdir=runs {command}"
    _, _, module, *arguments = shlex.split(command.replace("[", "").replace("]", ""))
    arguments = [PLACES.get(argument, argument).replace("=DIR", "=runs-of-it") for argument in arguments]
    if module == "launch.local":
        if "--status" not in arguments and "--dry_run" not in arguments:
            arguments.append("--dry_run")
        if "--workdir=runs" in arguments:
            arguments[arguments.index("--workdir=runs")] = "--workdir=new"
        assert local.main(arguments) == 0
    else:
        assert module == "experiments"
        if arguments[0] == "report":
            arguments.append("--out=written")
        assert experiments_command.main(arguments) == 0
    assert capsys.readouterr().out.strip()


class Taken(BaseException):
    """Raised in the place of what a command does with arguments that it has taken."""


def parsed_by_module():
    """The commands of the pages that one parser takes whole, as far as they are written out."""
    ours = (one for one in commands() if re.match(r"python -m (tx|launch|experiments)\b", one))
    rest = (one.partition(" ... ")[0] for one in ours if one not in NAMES_ALONE)
    return [one for one in rest if "--status" not in one and "--help" not in one]


@pytest.mark.parametrize("command", parsed_by_module())
def test_the_arguments_of_a_command_of_a_page_are_taken(command, monkeypatch):
    def parse(parser, argv=None, namespace=None):
        taken(parser, argv, namespace)
        raise Taken

    taken = cli.Parser.parse_args
    monkeypatch.setattr(cli.Parser, "parse_args", parse)
    monkeypatch.setattr(plugins, "load", lambda: None)  # the files are the pages' examples
    monkeypatch.setenv(plugins.VARIABLE, "")
    _, _, module, *arguments = shlex.split(re.sub(r"[][]", "", command))
    package = importlib.util.find_spec(module).submodule_search_locations is not None
    main = importlib.import_module(f"{module}.__main__" if package else module).main
    with pytest.raises(Taken):
        main(arguments)


@pytest.mark.parametrize("table", [ELSEWHERE, UNTESTED], ids=["elsewhere", "untested"])
def test_no_command_is_listed_that_no_page_has(table):
    everything = commands()
    assert [key for key in table if not any(command.startswith(key) for command in everything)] == []
