"""Runs exported to other tools, read back with the tools' own readers."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest
from fabricated import fail, put

import experiments
from experiments import __main__ as command
from experiments.report import reading

ROOT = pathlib.Path(__file__).resolve().parent.parent
CURVE = [{"step": 300, "loss": 2.0, "lr": 0.1}, {"step": 750, "loss": 1.0, "dev_nll": 1.5, "dev_ppl": 4.5}]


@pytest.fixture
def workdir(tmp_path):
    for seed in (1, 2):
        put(tmp_path, "table3/base@smoke", seed, ppl=5.0 + seed, bleu=30.0 + seed, curve=CURVE)
        put(tmp_path, "table3/A/h=1@smoke", seed, ppl=7.0, bleu=20.0)
    fail(tmp_path, "E", 1, "KeyError: x")
    return tmp_path


def session_groups(folder):
    """{group: group of sessions}, as TensorBoard's HParams plugin lists them."""
    from tensorboard import context as request_context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(folder))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider, multiplexer=multiplexer))
    ours = request_context.RequestContext()
    told = context.experiment_from_metadata(ours, "", True, context.hparams_metadata(ours, ""), [])
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_UNKNOWN]
    request = api_pb2.ListSessionGroupsRequest(allowed_statuses=statuses, slice_size=100)
    request.aggregation_type = api_pb2.AGGREGATION_AVG
    answer = list_session_groups.Handler(ours, context, "", request).run()
    return told, {group.name: group for group in answer.session_groups}, multiplexer


def test_tensorboard_lists_a_group_a_row_with_its_seeds(workdir, capsys):
    assert command.main(["export", str(workdir), "--to=tensorboard"]) == 0
    assert f"Written: 5 runs to {workdir}/tensorboard" in capsys.readouterr().out
    told, groups, events = session_groups(workdir / "tensorboard")
    assert {"sweep", "row", "model.num_heads", "model.positions"} <= {info.name for info in told.hparam_infos}
    assert {"ppl", "bleu", "target_tokens"} <= {info.name.tag for info in told.metric_infos}
    assert set(groups) == {"table3/base@smoke", "table3/A/h=1@smoke", "table3/E@smoke"}
    base = groups["table3/base@smoke"]
    assert {session.name for session in base.sessions} == {f"table3@smoke/base/seed{seed}" for seed in (1, 2)}
    assert base.hparams["model.num_heads"].number_value == 8
    assert groups["table3/A/h=1@smoke"].hparams["model.num_heads"].number_value == 1
    assert groups["table3/E@smoke"].hparams["model.positions"].string_value == "learned"
    metrics = {value.name.tag: value.value for value in base.metric_values}
    assert (metrics["ppl"], metrics["bleu"]) == pytest.approx((6.5, 31.5))
    assert [session.status for session in groups["table3/E@smoke"].sessions] == [2]  # STATUS_FAILURE
    scalars = events.Tensors("table3@smoke/base/seed1", "loss")
    assert [(one.step, one.tensor_proto.float_val[0]) for one in scalars] == [(300, 2.0), (750, 1.0)]
    assert "tensorflow" not in sys.modules


def test_what_is_exported_again_stands_once_and_reports_do_not_read_it(workdir):
    for _ in range(2):
        assert command.main(["export", str(workdir), "--to=tensorboard"]) == 0
    files = list((workdir / "tensorboard").rglob("events.*"))
    assert len(files) == 1 + 5
    (found,) = reading.read([workdir])
    assert len(experiments.load(workdir)) == 5
    assert [row.variant.name for row in found.shown if row.runs] == ["base", "A/h=1", "E"]
    linked = workdir / "linked"
    linked.mkdir()
    (linked / "table3@smoke").symlink_to(workdir / "table3@smoke")
    assert command.main(["export", str(linked / "table3@smoke"), "--to=tensorboard"]) == 0
    assert (linked / "tensorboard").is_dir()


def test_what_is_gone_or_left_out_is_in_no_later_export(workdir):
    def exported():
        there = workdir / "tensorboard"
        return {str(file.parent.relative_to(there)) for file in there.rglob("events.*")} - {"."}

    assert command.main(["export", str(workdir), "--to=tensorboard"]) == 0
    assert len(exported()) == 5
    shutil.rmtree(workdir / "table3@smoke/base/seed2")
    assert command.main(["export", str(workdir), "--to=tensorboard", "--only=base"]) == 0
    assert exported() == {"table3@smoke/base/seed1"}
    put(workdir, "heads/h=1@smoke", 1)
    assert command.main(["export", str(workdir), "--to=tensorboard"]) == 0
    assert "heads@smoke/h=1/seed1" in exported()
    shutil.rmtree(workdir / "heads@smoke")
    assert command.main(["export", str(workdir), "--to=tensorboard"]) == 0
    assert "heads@smoke/h=1/seed1" not in exported()


def test_what_cannot_be_exported_says_why(workdir, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    for arguments, line in (
        (["--to=mlflow"], "MLflow is not installed: pip install mlflow"),
        (["--to=tensorboard", "--out=sqlite:///x"], "TensorBoard reads a folder"),
        (["--to=tensorboard", f"--out={workdir}/table3@smoke/base/seed1/result.json/x"], "cannot write to"),
    ):
        with pytest.raises(SystemExit):
            command.main(["export", str(workdir), *arguments])
        assert line in capsys.readouterr().err


@pytest.fixture(scope="module")
def mlflow_python(tmp_path_factory):
    """Python of an environment with MLflow, and ours behind it: its pins and ours exclude each other."""
    folder = tmp_path_factory.mktemp("mlflow")
    install = ("-m", "pip", "install", "-q", "--disable-pip-version-check", "mlflow-skinny", "sqlalchemy", "alembic")
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        subprocess.run([folder / "bin" / "python", *install], check=True, capture_output=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no environment with MLflow can be made: {error}")
    (packages,) = (folder / "lib").glob("python*/site-packages")
    ours = [sysconfig.get_paths()["purelib"], *(path for path in sys.path if path.endswith("site-packages"))]
    (packages / "zz-ours.pth").write_text("".join(f"{path}\n" for path in dict.fromkeys(ours)))
    return folder / "bin" / "python"


READ = """
import json, mlflow, sys
client = mlflow.MlflowClient(tracking_uri=sys.argv[1])
(experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
told = {"experiment": experiment.name, "runs": {}}
for run in client.search_runs([experiment.experiment_id]):
    told["runs"][run.info.run_name] = {
        "id": run.info.run_id, "status": run.info.status, "params": run.data.params, "metrics": run.data.metrics,
        "tags": run.data.tags, "loss": [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")],
    }
print(json.dumps(told))
"""


@pytest.mark.slow
def test_mlflow_keeps_every_run_once_and_anew_where_it_went_on(mlflow_python, workdir):
    uri = f"sqlite:///{workdir}/mlflow.db"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def run(*arguments):
        told = subprocess.run(
            [mlflow_python, *arguments], capture_output=True, text=True, env=environment, cwd=workdir, timeout=600
        )
        assert told.returncode == 0, told.stderr
        return told.stdout

    def export():
        assert f"Written: 5 runs to {workdir}/mlflow.db" in run("-m", "experiments", "export", workdir, "--to=mlflow")
        return json.loads(run("-c", READ, uri))

    first = export()
    assert first["experiment"] == "table3@smoke"
    assert set(first["runs"]) == {"base/seed1", "base/seed2", "A/h=1/seed1", "A/h=1/seed2", "E/seed1"}
    base = first["runs"]["base/seed1"]
    assert (base["metrics"]["ppl"], base["metrics"]["bleu"], base["status"]) == (6.0, 31.0, "FINISHED")
    assert base["loss"] == [[300, 2.0], [750, 1.0]]
    assert (base["params"]["model.num_heads"], base["params"]["train.seed"]) == ("8", "1")
    assert first["runs"]["A/h=1/seed2"]["tags"]["diff"] == "h=1 d_k=128 d_v=128"
    failed = first["runs"]["E/seed1"]
    assert (failed["status"], failed["tags"]["error"], failed["metrics"]) == ("FAILED", "KeyError: x", {})
    shutil.rmtree(workdir / "table3@smoke" / "E")
    put(workdir, "table3/E@smoke", 1, bleu=33.0)
    again = export()
    assert {name: one["id"] for name, one in again["runs"].items() if name != "E/seed1"} == {
        name: one["id"] for name, one in first["runs"].items() if name != "E/seed1"
    }
    assert again["runs"]["E/seed1"]["metrics"]["bleu"] == 33.0
