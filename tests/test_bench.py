"""`python -m experiments.bench`: turns and ratios, the table, our contestant at a tiny size, and what is refused.

Peers are tested where they are installed: PyTorch's model is ours to rounding, the others translate as ours does.
"""

import contextlib
import importlib.util
import json
import pathlib
import re
import statistics
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu
import tiny

from experiments import __main__ as experiments_command
from experiments.bench import __main__ as command
from experiments.bench import decoding, guards, packing, seeds, table, training
from experiments.bench.contestants import bundle, weights
from experiments.bench.contestants.length_batches import LengthBatches
from experiments.bench.harness import contestant, rounds, sentences
from experiments.bench.harness import machine as machines
from experiments.bench.harness.contestant import Contestant
from tx import config as tx_config
from tx import plugins
from tx.data.tokenized import TokenizedSplit
from tx.errors import UserError
from tx.runs.run_config import handed_over

SEED = 36  # of a random model that ends every sentence, each in another way


def refused(capsys, *arguments):
    """Returns the one line that a command ends with."""
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    message = capsys.readouterr().err
    assert ended.value.code == 2, message
    return message


# Rounds


def test_contestants_take_turns():
    calls = []

    def one(label):
        return lambda: calls.append(label) or {"n": len(calls)}

    taken = rounds.take_turns({"a": one("a"), "b": one("b")}, 3)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert taken == {"a": [{"n": 1}, {"n": 3}, {"n": 5}], "b": [{"n": 2}, {"n": 4}, {"n": 6}]}


def test_medians_and_ratios_are_taken_within_rounds():
    ours = [{"rate": 10.0, "x": 1}, {"rate": 30.0}, {"rate": 8.0}]
    peer = [{"rate": 5.0}, {"rate": 10.0}, {"rate": 8.0}]
    assert rounds.medians(ours) == {"rate": 10.0}
    assert rounds.ratio(ours, peer, "rate") == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_rates_follow_from_counts():
    config = tiny.config()
    one = {"seconds": 2.0, "batching_s": 0.5, "source_tokens": 30, "target_tokens": 50, "positions": 100}
    found = training._rates(config, one, {"flops": 1e9, "dense": 2e9})
    assert (found["target_tokens_per_s"], found["tokens_per_s"]) == (25.0, 40.0)
    assert found["padding_share"] == pytest.approx(0.2)
    assert found["batching_share"] == 0.25
    assert found["share_of_peak"] == pytest.approx(found["flops_per_s"] / 1e9)
    assert found["mfu"] == pytest.approx(found["flops_per_s"] / 2e9)
    assert "mfu" not in training._rates(config, one, {"flops": 1e9, "dense": None})


def test_the_fastest_layouts_are_chosen():
    def trial(mode, size, rate):
        return {"mode": mode, "size": size, "target_tokens_per_s": rate}

    tried = {"eager": [trial("eager", 1, 5), trial("eager", 1, 7), trial("eager", 2, 9)]}
    tried["compiled"] = [trial("compiled", 1, 8), trial("compiled", 4, 6)]
    chosen = training._choices(tried)
    assert {label: one["target_tokens_per_s"] for label, one in chosen.items()} == {
        "nn.Transformer": 7,
        "nn.Transformer compiled": 8,
        "nn.Transformer, updates x 2": 9,
    }
    assert training._choices({"eager": tried["eager"][:2]}).keys() == {"nn.Transformer"}
    assert training._choices({}) == {}


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_layouts_are_tried_and_a_gpu_keeps_what_it_has_compiled(monkeypatch, platform):
    """A stand-in for PyTorch makes 10 tokens a second, and 20 in two parts, or where memory is kept."""
    started_with = []

    class One(contextlib.AbstractContextManager):
        def __init__(self, label, arguments, chosen, threads, platform):
            self.keep = chosen["keep_memory"]
            started_with.append(self.keep)

        def __call__(self, method, **asked):
            if method == "layout":
                self.parts = asked["update_tokens"] / asked["part_tokens"]
                return {}
            return {"target_tokens": 100, "seconds": 10 / (1 + (self.parts == 2)) / (1 + self.keep)}

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(training, "_torch", One)
    with contextlib.ExitStack() as stack:
        trials, one = training._try_layouts(stack, {}, "tuned", 50.0, 1000, 1, platform)
    sizes = [(trial["keep_memory"], trial["size"], trial["parts"]) for trial in trials]
    assert sizes[-1 if platform == "gpu" else 2][2] == 2
    if platform == "gpu":
        assert (started_with, sizes) == ([False], [(False, 1, 1), (False, 1, 2)])
        assert isinstance(one, One)
    else:
        assert started_with == [False, True, True]
        assert sizes == [(False, 1, 1)] + [(True, *layout) for layout in training.LAYOUTS["cpu"]]
        assert one is None
    assert max(trials, key=training._rate)["parts"] == 2


def test_what_has_compiled_before_has_no_time_of_compiling(monkeypatch):
    """On a GPU the process that tried the layouts is kept; its pass over the sentences compiles nothing more."""

    def run(method, **_):
        return {"steps": 2, "target_tokens": 100, "seconds": 1.0}

    monkeypatch.setattr(training, "Contestant", lambda *_: contextlib.nullcontext(run))
    monkeypatch.setattr(training, "_torch", lambda *_: contextlib.nullcontext(run))
    trials = [{"mode": "tuned", "size": 1, "update_tokens": 50, "part_tokens": 50, "target_tokens_per_s": 1.0}]
    config = tiny.config()
    for kept, timed in ((run, {"tx"}), (None, {"tx", "PyTorch tuned"})):
        monkeypatch.setattr(training, "_try_layouts", lambda *_, kept=kept: (trials, kept))
        with contextlib.ExitStack() as stack:
            contestants, _, first, _ = training._start(stack, config, "folder", ("tuned",), 100, 1, "gpu")
        assert contestants.keys() == {"tx", "PyTorch tuned"}
        assert first.keys() == timed


# Models that other programs can hold


@pytest.mark.parametrize("size", ["smoke", "recall", "multi30k", "tatoeba.fr-en", "paper"])
def test_beside_peers_d_model_is_split_among_the_heads(size):
    config, own = sentences.config_of(size, {}, beside_peers=True), sentences.config_of(size, {})
    assert config.model.d_k * config.model.num_heads == config.model.d_model == own.model.d_model
    assert config.model.d_v == config.model.d_k
    assert config.model.norm == "post"
    changed = {"model.d_k", "model.d_v", "model.norm"}
    assert tx_config.differences(own.to_dict(), config.to_dict()).keys() <= changed
    bundle.refuse_inexpressible(config.model.to_dict(), "CTranslate2")


def test_a_rows_own_heads_and_norm_and_the_users_stay():
    row = sentences.config_of("table3/B/d_k=16@multi30k", {}, beside_peers=True).model
    assert (row.d_model, row.num_heads, row.d_k, row.d_v) == (128, 8, 4, 16)
    row = sentences.config_of("table3/A/h=1@multi30k", {}, beside_peers=True).model
    assert (row.num_heads, row.d_k, row.d_v) == (1, 128, 128)
    given = {"model.d_k": "32", "model.norm": "pre"}
    model = sentences.config_of("multi30k", given, beside_peers=True).model
    assert (model.d_k, model.norm) == (32, "pre")


def test_commands_with_a_peer_measure_what_it_can_hold(monkeypatch):
    measured = []

    def measure(config, **_):
        measured.append((config.model.num_heads * config.model.d_k, config.model.norm))
        raise UserError("measured")

    for module, name in (
        (training, "measure_training"),
        (training, "measure_memory"),
        (seeds, "measure_seeds"),
        (guards, "measure_guards"),
    ):
        monkeypatch.setattr(module, name, measure)
    for name in ("train", "memory", "seeds", "guards"):
        with pytest.raises(SystemExit):
            command.main([name, "--size=smoke"])
    assert measured == [(64, "post"), (64, "post"), (128, "pre"), (128, "pre")]  # tx beside itself is as the scale is


def test_what_was_measured_is_still_what_would_be():
    """The committed results beside other programs are of the sizes that the commands measure now."""
    measured = pathlib.Path(table.__file__).parent / "results"
    found = [one for one in table.read([measured]) if one["kind"] in table.BESIDE_PEERS]
    assert {one["kind"] for one in found} == set(table.BESIDE_PEERS)
    for result in found:
        model = sentences.config_of(result["config"]["name"], {}, beside_peers=True).model
        then, names = result["config"]["model"], (*table.SIZE, "vocab_size")
        assert {name: then[name] for name in names} == {name: model[name] for name in names}


def test_a_run_that_a_peer_cannot_hold_is_refused_before_anything_is_measured(monkeypatch, capsys, tmp_path):
    config = sentences.config_of("multi30k", {"model.dtype": "bfloat16"})
    monkeypatch.setattr("tx.decoding.trained_model.open_run", lambda run, options: (config, ({}, 1, "last"), None))
    monkeypatch.setattr(decoding, "need", lambda *_: None)
    for peer, label in (("ctranslate2", "CTranslate2"), ("marian", "Hugging Face Marian")):
        assert refused(capsys, "decode", tmp_path, f"--peers={peer}") == (
            f"error: {label} cannot hold model.norm=pre, model.dtype=bfloat16, model.d_k=32, model.d_v=32 "
            "(h=8, d_model=128); train a run that it can hold with --set model.norm=post --set model.dtype=float32 "
            "--set model.d_k=16 --set model.d_v=16\n"
        )


@pytest.mark.parametrize(
    ("field", "value", "set_to"),
    [("positions", "rotary", "sinusoidal"), ("mixer", "local", "attention"), ("num_kv_heads", 1, "0")],
)
def test_models_with_other_parts_are_refused(field, value, set_to):
    model = tiny.config(**WHOLE).model.to_dict()
    bundle.refuse_inexpressible(model, "Marian")
    bundle.refuse_inexpressible(model | {"positions": "learned"}, "Marian")
    with pytest.raises(UserError, match=rf"cannot hold model.{field}={value} .* --set model.{field}={set_to}$"):
        bundle.refuse_inexpressible(model | {field: value}, "Marian")
    with pytest.raises(UserError, match="whose d_model is a multiple of h only; here h=3, d_model=16"):
        bundle.refuse_inexpressible(model | {"num_heads": 3}, "Marian")


@pytest.mark.parametrize(
    ("size", "changed", "lacking"),
    [
        ("similarity/additive/d_k=64@multi30k", {}, "model.similarity=additive"),
        ("feed_forward/swiglu@smoke", {}, "model.feed_forward=swiglu"),
        ("table1/recurrent@smoke", {}, "model.mixer=recurrent"),
        ("heads/h=8/kv=1@smoke", {}, "model.num_kv_heads=1"),
        ("add_norm/residual-without-norm@smoke", {}, "model.norm=none"),
        ("regularisation/dropout/residual@smoke", {}, "model.drop_embedding=false"),
        ("optimizers/muon@smoke", {}, "optim.optimizer=muon"),
        ("losses/focal/gamma=1@smoke", {}, "loss.name=focal"),
        ("smoke", {"optim.schedule": "cosine"}, "optim.schedule=cosine"),
        ("smoke", {"optim.linear_warmup": "false"}, "optim.linear_warmup=false"),
        ("smoke", {"optim.scale_by_width": "false"}, "optim.scale_by_width=false"),
        ("smoke", {"optim.clip_norm": "1", "train.ema": "0.9"}, "optim.clip_norm=1.0, train.ema=0.9"),
        ("table3/B/d_k=16@multi30k", {}, "model.d_k=4"),
        ("smoke", {"model.projection_bias": "false"}, "model.projection_bias=false"),
    ],
)
def test_what_pytorch_would_train_something_else_in_place_of_is_refused(monkeypatch, size, changed, lacking):
    def start(*_):
        raise RuntimeError("measured")

    monkeypatch.setattr(training, "need", lambda *_: None)
    monkeypatch.setattr(training, "_write_sentences", start)
    config = sentences.config_of(size, changed, beside_peers=True)
    given = {"threads": 1, "modes": tuple(training.MODES)}
    for measure, more in (
        (training.measure_training, {"count": 9, "turns": 1}),
        (training.measure_memory, {"steps": 1}),
    ):
        with pytest.raises(UserError, match=rf"cannot hold {re.escape(lacking)} \(h=8, d_model="):
            measure(config, peer="torch", **given, **more)
        with pytest.raises(RuntimeError, match="measured"):
            measure(config, peer="none", **given, **more)
    if lacking.startswith(("model.d_k", "model.projection")):  # which the one written for speed has
        training.refuse_what_torch_lacks(config, ("tuned", "tuned-compiled"))


@pytest.mark.parametrize("size", ["smoke", "multi30k", "depth/12-2@smoke", "add_norm/pre@smoke", "table3/big@paper"])
def test_what_pytorch_holds_is_measured(size):
    config = sentences.config_of(size, {"model.dtype": "bfloat16"}, beside_peers=True)
    training.refuse_what_torch_lacks(config, training.MODES)


# Sentences and batches


def test_invented_sentences():
    split = sentences.invent(500, 40, 64)
    assert len(split) == 500
    for ids, offsets in ((split.src_ids, split.src_offsets), (split.tgt_ids, split.tgt_offsets)):
        lengths = np.diff(offsets)
        assert lengths.min() >= 2
        assert lengths.max() <= 64
        assert 20 < np.median(lengths) < 28
        assert (ids[offsets[1:] - 1] == 1).all()
        assert np.count_nonzero(ids == 1) == 500
        assert ids.max() < 40
    assert np.corrcoef(split.src_lengths, split.tgt_lengths)[0, 1] > 0.8
    np.testing.assert_array_equal(split.src_ids, sentences.invent(500, 40, 64).src_ids)


@pytest.mark.parametrize("quantile", [1.0, 0.5])
def test_sentences_are_those_that_a_run_trains_on(monkeypatch, quantile):
    lengths = [(5, 6), (1, 7), (9, 30), (8, 1), (3, 4), (20, 21), (40, 3)]  # with the end of sentence

    def side(sizes):
        return np.ones(sum(sizes), np.int32), np.cumsum([0, *sizes])

    split = TokenizedSplit(*(part for sizes in zip(*lengths, strict=True) for part in side(sizes)))
    prepared = types.SimpleNamespace(splits={"train": split})
    monkeypatch.setattr("tx.data.tokenized.prepare", lambda *_: prepared)
    config = sentences.config_of("smoke", {"data.row_length": "32", "data.max_length_quantile": str(quantile)})
    chosen, text = sentences.choose(config, 100)
    wanted = {(5, 6), (3, 4)} | ({(9, 30), (20, 21)} if quantile == 1 else set())
    assert set(zip(chosen.src_lengths, chosen.tgt_lengths, strict=True)) == wanted
    assert text.startswith(f"{len(wanted)} training sentences")
    config = sentences.config_of("smoke", {"data.row_length": "3"})
    with pytest.raises(UserError, match=r"no training sentence fits into data.row_length=3"):
        sentences.choose(config, 100)


def test_sentences_survive_a_folder(tmp_path):
    split = sentences.pick(sentences.invent(50, 40, 64), np.array([7, 3, 3]))
    sentences.save(split, tmp_path)
    loaded = sentences.load(str(tmp_path))
    assert len(loaded) == 3
    np.testing.assert_array_equal(loaded.source(1), loaded.source(2))
    np.testing.assert_array_equal(loaded.target(0), sentences.invent(50, 40, 64).target(7))


@pytest.mark.parametrize(("update", "parts"), [(200, 1), (1000, 4), (2000, 1)])
def test_batches_by_length_hold_every_sentence_once_an_epoch(update, parts):
    split = sentences.invent(400, 40_000, 64)  # so many subwords that no two sentences are alike
    batches = LengthBatches(split, seed=1, update_tokens=update, part_tokens=update / parts)
    total, seen, padding, updates = int(split.tgt_offsets[-1]), [], [], 0
    while len(seen) < len(split):
        part_list = next(batches)
        updates += 1
        for src, tgt in part_list:
            assert src.dtype == tgt.dtype == np.int64
            assert len(src) == len(tgt)
            seen += [tuple(row[row != 0]) for row in tgt]
            padding.append((tgt == 0).mean())
    assert sorted(seen) == sorted(tuple(split.target(i)) for i in range(len(split)))
    assert updates == pytest.approx(max(1, total / update), rel=0.1)
    assert len(padding) == pytest.approx(max(1, total / update * parts), rel=0.1)
    if update == 200:
        assert np.mean(padding) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "positions",
    [
        {"model__sinusoid_layout": "concatenated", "model__sinusoid_endpoint": True},
        {"model__sinusoid_layout": "concatenated", "model__sinusoid_endpoint": False},
        {"model__sinusoid_layout": "interleaved", "model__sinusoid_endpoint": True},
        {"model__sinusoid_layout": "interleaved", "model__sinusoid_endpoint": False},
        {"model__positions": "learned", "model__scale_positions": True},
        {"model__positions": "learned", "model__scale_positions": False},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_weights_under_plain_names(tmp_path, positions):
    config = tiny.config(**positions)
    module, params = tiny.init(config)
    bundle.save(tmp_path, config.to_dict(), params, [np.array([5, 1])])
    loaded_config, found, sources = bundle.load(str(tmp_path))
    assert loaded_config == config.to_dict()
    assert sources == [[5, 1]]
    assert not found.embedding[0].any()
    np.testing.assert_array_equal(found.embedding[1:], params["embedding"][1:])
    flat = weights.flat(params)
    again = weights.flat(found.tree())
    assert flat.keys() == again.keys()
    for path in flat:
        np.testing.assert_array_equal(flat[path], again[path])
    position = jnp.arange(9)[None]
    tokens = jnp.zeros((1, 9), jnp.int32)  # embeddings of zero: what is left are the positions
    for side, space in (("source", params["target_space"][0]), ("target", None)):

        def embed(module, side=side, space=space):
            return module._embed(tokens, position, getattr(module, f"{side}_position"), False, space)

        wanted = module.apply({"params": params}, method=embed)[0]
        np.testing.assert_allclose(found.positions(side, 9), wanted, atol=1e-6)


# Contestants


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """Our training of a tiny model, in a process of its own."""
    folder = tmp_path_factory.mktemp("sentences")
    sentences.save(sentences.invent(60, 40, 32), folder)
    config = tiny.config(model__num_layers=1).to_dict()
    with Contestant("tx", "contestants.tx_training:Training", {"config": config, "folder": str(folder)}, 1) as one:
        yield one


@pytest.mark.slow
def test_our_training_makes_whole_updates(trainer):
    one = trainer("run", target_tokens=200)  # 4 rows of 32: two updates
    assert one["steps"] == 2
    assert 200 <= one["target_tokens"] <= one["positions"] / 2 == 2 * 4 * 32
    assert 0 < one["source_tokens"] <= one["positions"] / 2
    assert 0 < one["batching_s"] < one["seconds"]
    assert 0 < one["loss"] < 10
    memory = trainer("memory")
    assert 10 < memory["started_mib"] < memory["peak_mib"] < 5000


@pytest.mark.slow
def test_our_training_makes_the_updates_of_a_dispatch_in_one_call(tmp_path):
    sentences.save(sentences.invent(60, 40, 32), tmp_path)
    ran = []
    for each in (1, 2):
        config = tiny.config(model__num_layers=1, model__dropout=0.0, train__steps_per_dispatch=each).to_dict()
        arguments = {"config": config, "folder": str(tmp_path)}
        with Contestant("tx", "contestants.tx_training:Training", arguments, 1) as one:
            ran.append(one("run", target_tokens=200))
    assert [one["steps"] for one in ran] == [2, 2]
    for count in ("target_tokens", "source_tokens", "positions"):
        assert ran[0][count] == ran[1][count]
    assert ran[1]["loss"] == pytest.approx(ran[0]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    "served",
    [
        "tx_training:Training",
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ("tx_decoding:Decoding", "tx_loop:Loop", "tx_start:Start")
        ),
    ],
)
def test_our_contestants_import_what_the_command_was_told_to(tmp_path, monkeypatch, served):
    file = tmp_path / "own.py"
    file.write_text("raise ValueError('seen')")
    monkeypatch.setenv(plugins.VARIABLE, str(file))
    config = tiny.config().to_dict()
    arguments = {
        "tx_training:Training": {"config": config, "folder": str(tmp_path)},
        "tx_decoding:Decoding": {"folder": str(tmp_path)},
        "tx_loop:Loop": {"config": config, "kept": []},
        "tx_start:Start": {"config": config},
    }
    with pytest.raises(UserError, match=r"own\.py cannot be imported: ValueError: seen"):
        Contestant("ours", f"contestants.{served}", arguments[served], 1)


def test_a_contestant_that_breaks_off_shows_its_log(trainer):
    with (
        Contestant("product", "harness.machine:Product", {"library": "numpy"}, 1) as one,
        pytest.raises(RuntimeError, match=r"(?s)product broke off with status 1.*no_such_method"),
    ):
        one("no_such_method")


def test_a_contestants_user_errors_are_ours(tmp_path):
    sentences.save(sentences.invent(5, 40, 32), tmp_path)
    config = tiny.config(data__row_length=1).to_dict()  # too short for any sentence
    with pytest.raises(UserError, match=r"ours: no training sentence fits into data\.row_length=1;"):
        Contestant("ours", "contestants.tx_training:Training", {"config": config, "folder": str(tmp_path)}, 1)


# Seeds


def started(monkeypatch, status=0):
    """Replaces the processes of runs; returns the list of (runs in it, its cores, processes still there)."""
    calls, alive = [], []

    def start(group, bound, folder, platform, runs):
        there = sum(process.poll() is None for process in alive)
        process = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(0.3); exit({status})"])
        calls.append(([handed_over(run).config for run in group], bound, there))
        alive.append(process)
        log = pathlib.Path(runs) / f"{len(calls)}.log"
        log.write_text("what went wrong")
        return process, log

    monkeypatch.setattr(seeds, "_start", start)
    return calls


def test_seeds_are_run_stacked_one_by_one_and_side_by_side(monkeypatch):
    calls = started(monkeypatch)
    monkeypatch.setattr(seeds, "cores", lambda threads=None: [4, 7])
    config = sentences.config_of("smoke", {"train.steps_per_dispatch": "10", "model.dropout": "0.2"})
    result = seeds.measure_seeds(config, seeds=3, threads=2, turns=1, platform="cpu")
    shape = [(len(group), bound, there) for group, bound, there in calls]
    warm, real = shape[:4], shape[4:]  # what is compiled before: one of each process
    assert [one[0] for one in warm] == [3, 1, 1, 1]
    assert real[:4] == [(3, [4, 7], 0)] + 3 * [(1, [4, 7], 0)]
    assert sorted(real[4:6]) in ([(1, [4], 0), (1, [7], 1)], [(1, [4], 1), (1, [7], 0)])
    assert real[6][0] == 1
    own = {"train.seed": 3, "train.steps": 10, "parallel.threads": 2}
    assert tx_config.fields(calls[0][0][2]) == tx_config.fields(config) | own
    assert calls[4][0][0].train.steps == config.train.steps
    assert set(result["ratios"]) == {"tx, one by one", "tx, 2 processes of a thread"}
    each = result["contestants"]["tx"]["rounds"][0]
    assert each["runs_per_hour"] == pytest.approx(3 * 3600 / each["seconds"])
    result |= {"format": 1, "machine": {"processor": "A", "cores": 2, "threads": 2}, "versions": {}, "revision": "a"}
    built = table.build([result])
    assert [row[4] for row in built.rows] == ["tx, one by one", "tx, 2 processes of a thread"]


def test_few_seeds_one_by_one_tell_the_rate_and_a_gpu_has_one_process(monkeypatch):
    calls = started(monkeypatch)
    monkeypatch.setattr(seeds, "cores", lambda threads=None: [4, 7])
    config = sentences.config_of("smoke", {})
    result = seeds.measure_seeds(config, seeds=3, alone=2, threads=2, turns=1, platform="gpu")
    assert [len(group) for group, *_ in calls] == [3, 1, 3, 1, 1]
    assert set(result["ratios"]) == {"tx, one by one"}
    assert {label: one["settings"]["runs"] for label, one in result["contestants"].items()} == {
        "tx": 3,
        "tx, one by one": 2,
    }
    each = result["contestants"]["tx, one by one"]["rounds"][0]
    assert each["runs_per_hour"] == pytest.approx(2 * 3600 / each["seconds"])


def test_a_run_that_breaks_off_ends_the_measurement(monkeypatch):
    started(monkeypatch, status=3)
    config = sentences.config_of("smoke", {})
    with pytest.raises(UserError, match="a run broke off with status 3: what went wrong"):
        seeds.measure_seeds(config, seeds=1, threads=1, turns=1, platform="cpu")


# Guards


class Counted:
    """Stands for the process of a loop: 10 tokens a step, in half a second and a quarter for each kind that is kept."""

    def __init__(self, label, served, arguments, threads):
        self.kept = arguments.get("kept", [])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __call__(self, method, steps=0, checked=None):
        if method == "start":
            self.starts.append(checked)
            return {"start_s": 3.0 if checked else 2.0 + len(self.starts) / 100}
        self.made.append((method, len(self.kept), steps))
        return {"seconds": steps * (0.5 + len(self.kept) / 4), "target_tokens": 10 * steps}


def test_guarded_and_unguarded_loops_advance_in_turns_from_checkpoint_to_checkpoint(monkeypatch):
    monkeypatch.setattr(guards, "Contestant", Counted)
    monkeypatch.setattr(Counted, "made", [], raising=False)
    monkeypatch.setattr(Counted, "starts", [], raising=False)
    config = tiny.config(train__checkpoint_every=24, train__eval_every=48, train__select="best")
    result = guards.measure_guards(config, turns=2, threads=1)
    one_round = [
        ("advance", kept, steps)
        for steps, order in ((10, (2, 1, 0)), (10, (0, 1, 2)), (4, (2, 1, 0)))
        for kept in order
    ]
    warm = [("advance", kept, guards.WARM) for kept in (2, 1, 0)]
    assert Counted.made == warm + 2 * one_round
    assert result["config"]["train"]["steps"] > guards.WARM + 2 * 24  # so that neither comes to its end
    assert result["config"]["train"]["select"] == "last"  # nothing is evaluated to select by
    assert result["contestants"]["tx"]["rounds"][0] == {
        "seconds": 24.0,
        "target_tokens": 240,
        "target_tokens_per_s": 10.0,
        "start_s": 3.0,
    }
    assert Counted.starts == [False, True, True, False, False, True]  # the first of each does not count
    assert result["contestants"][guards.UNCHECKED]["median"]["start_s"] == pytest.approx(2.045)
    assert result["ratios"][guards.BARE]["target_tokens_per_s"] == {"median": 0.5, "min": 0.5, "max": 0.5}


@pytest.mark.slow  # the corpus, and two processes that compile
def test_the_loop_trains_with_its_guards_and_without():
    settings = {"model.d_model": "16", "model.d_ff": "32", "model.num_layers": "1", "data.batch_rows": "2"}
    config = sentences.config_of(
        "smoke", settings | {"train.checkpoint_every": "4", "train.eval_every": "4", "train.log_every": "2"}
    )
    result = guards.measure_guards(config, turns=1, threads=1)
    guarded, unchecked, bare = (one["rounds"][0] for one in result["contestants"].values())
    assert guarded["target_tokens"] == unchecked["target_tokens"] == bare["target_tokens"]  # of the same batches
    assert 4 * 48 < guarded["target_tokens"] <= 4 * 2 * 48
    assert set(result["ratios"]) == {guards.UNCHECKED, guards.BARE}
    assert guarded["start_s"] > 0 < unchecked["start_s"]


# Packing


@pytest.mark.slow  # three processes
def test_batches_are_packed_ahead_and_by_one_thread(tmp_path, capsys):
    out = tmp_path / "packing.json"
    given = ["--size=smoke", "--set=train.steps_per_dispatch=5", "--sentences=500", "--rounds=2", "--threads=1"]
    assert command.main(["packing", *given, f"--out={out}"]) == 0
    result = json.loads(out.read_text())
    ahead, alone = (result["contestants"][label]["rounds"] for label in ("tx", packing.ALONE))
    assert [one["target_tokens"] for one in ahead] == [one["target_tokens"] for one in alone]  # the same batches
    config = sentences.config_of("smoke", {"train.steps_per_dispatch": "5"})
    positions = packing.UPDATES * config.data.batch_rows * config.data.row_length
    for one in (*ahead, *alone):
        assert 0.5 * positions < one["target_tokens"] <= positions
        assert one["target_tokens_per_s"] == pytest.approx(one["target_tokens"] / one["seconds"])
        assert one["target_tokens_per_cpu_s"] == pytest.approx(one["target_tokens"] / one["cpu_seconds"])
    table.build(table.read([out]))
    assert "packing ahead of a device, target tokens/s" in capsys.readouterr().out


@pytest.mark.parametrize(("each", "drawn"), [(1, 1000), (7, 1001), (50, 1000), (2000, 2000)])
def test_a_round_of_packing_has_as_many_updates_whatever_a_call_makes(monkeypatch, each, drawn):
    updates = []

    def draw(method, dispatches):
        updates.append(dispatches * each)
        return {"seconds": 2.0, "cpu_seconds": 1.0, "target_tokens": 10 * dispatches}

    monkeypatch.setattr(packing, "Contestant", lambda *_: contextlib.nullcontext(draw))
    monkeypatch.setattr(packing.sentences, "choose", lambda *_: (sentences.invent(5, 40, 32), "invented"))
    config = tiny.config()
    config.train.steps_per_dispatch = each
    packing.measure_packing(config, count=5, turns=2, threads=1)
    assert updates == 6 * [drawn]


# The table


def results(folder, ratio=2.0, figure="target_tokens_per_s", kind="train", **more):
    """Writes a made-up result where our figure is `ratio` times PyTorch's."""
    ours, theirs = {figure: 1000.0 * ratio, "share_of_peak": 0.5}, {figure: 1000.0, "share_of_peak": 0.25}
    made = {
        "format": 1,
        "kind": kind,
        "what": "table3/base@multi30k",
        "parameters": 1_900_000,
        "machine": {"processor": "A|B", "cores": 2, "threads": 2},
        "versions": {"jax": "0.10", "torch": "2.13"},
        "revision": "abc",
        "sentences": "some sentences",
        "matmul_peak": {"flops": 1e11},
        "contestants": {"tx": {"median": ours}, "PyTorch eager": {"median": theirs, "identical": 1.0, "bleu": 34.5}},
        "ratios": {"PyTorch eager": {figure: {"median": ratio, "min": ratio * 0.9, "max": ratio * 1.1}}},
    } | more
    made["contestants"]["tx"]["bleu"] = 34.5
    folder.mkdir(exist_ok=True)
    (folder / f"{kind}.json").write_text(json.dumps(made))


@pytest.mark.parametrize(
    ("ratio", "more_is_better", "text"),
    [
        (2.0, True, "tx is 2.00 times as fast"),
        (0.5, True, "peer is 2.00 times as fast"),
        (2.0, False, "tx takes 2.00 times as much"),
        (0.5, False, "peer takes 2.00 times as much"),
        (1.005, True, "even"),
    ],
)
def test_who_is_better(ratio, more_is_better, text):
    assert table.verdict(ratio, more_is_better, "peer") == text


def test_the_table_says_where_a_peer_is_faster(tmp_path, capsys):
    results(tmp_path, ratio=0.8)
    size = {"num_layers": 3, "d_model": 128, "d_ff": 512, "num_heads": 8, "d_k": 16, "d_v": 16, "norm": "post"}
    config = {"name": "table3/base@multi30k", "model": size, "train": {"micro_batches": 4}}
    results(tmp_path, ratio=0.5, figure="peak_mib", kind="memory", config=config)
    results(tmp_path, ratio=3.0, figure="sentences_per_s", kind="decode", beam=4, config=config)
    assert command.main(["table", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line] for line in lines]
    assert rows[0][2:] == ["machine", "threads", "peer", "tx", "peer's", "tx / peer", "least to greatest", "better"]
    assert [row[0] for row in rows[2:]] == [
        "training, target tokens/s",
        "translating, sentences/s",
        "training, peak memory in MiB",
    ]
    assert rows[2][2:] == [
        *(r"A\|B", "2", "PyTorch eager", "800", "1,000", "0.80", "0.72 to 0.88"),
        "PyTorch eager is 1.25 times as fast",
    ]
    assert rows[3][-1] == "tx is 3.00 times as fast"
    assert rows[4][-1] == "PyTorch eager takes 2.00 times as much"
    assert r"A\|B, 2 cores" in text
    assert "share of a matrix product's 100 GFLOP/s: tx 50%, PyTorch eager 25%" in text
    assert "tx computes an update in 4 micro-batches, PyTorch in one unless its label says otherwise" in text
    assert "base@multi30k (1.9M parameters): N=3 d_model=128 d_ff=512 h=8 d_k=16 d_v=16 norm=post." in text
    beside = "Beside other programs models have h x d_k = h x d_v = d_model and the norm after the sub-layer"
    assert beside in text
    wider = config | {"model": size | {"d_k": 32}}
    results(tmp_path / "wider", ratio=3.0, figure="sentences_per_s", kind="decode", beam=4, config=wider)
    assert command.main(["table", str(tmp_path / "wider")]) == 0
    assert beside not in capsys.readouterr().out
    assert "PyTorch eager: BLEU 34.5, 100.0% of the translations identical to ours" in text


def test_each_kind_of_processor_has_its_own_rows(tmp_path):
    for folder, processor, ratio in (("a", "Intel(R) Xeon(R) Processor", 1.14), ("b", "AMD EPYC", 2.17)):
        machine = {"processor": processor, "cores": 2, "threads": 2}
        results(tmp_path / folder, ratio, machine=machine, matmul_peak={"flops": 1e11 * ratio})
    built = table.build(table.read([tmp_path / "a", tmp_path / "b"]))
    assert [(row[2], row[7]) for row in built.rows] == [("AMD EPYC", "2.17"), ("Intel Xeon", "1.14")]
    assert [(one["machine"], one["ratio"]) for one in built.records] == [("AMD EPYC", 2.17), ("Intel Xeon", 1.14)]
    peaks = [note for note in built.notes if "share of a matrix product" in note]
    assert [note.partition("share")[0] for note in peaks] == [
        "table3/base@multi30k (1.9M parameters), AMD EPYC, 2 threads: ",
        "table3/base@multi30k (1.9M parameters), Intel Xeon, 2 threads: ",
    ]


def test_what_has_no_peer_is_a_row_with_its_share_of_the_device(tmp_path, capsys):
    size = {"num_layers": 6, "d_model": 512, "d_ff": 2048, "num_heads": 8, "d_k": 64, "d_v": 64, "norm": "post"}
    config = {"name": "table3/base@paper", "model": size | {"dtype": "bfloat16"}, "train": {"micro_batches": 1}}
    shared = {"target_tokens_per_s": 650e3, "share_of_peak": 0.33, "mfu": 0.256}
    results(tmp_path, ratios={}, config=config, contestants={"tx": {"median": shared}})
    [one] = table.read([tmp_path])
    [row] = table.build([one]).rows
    assert row[1].endswith("bfloat16")
    assert row[2:] == ("A|B", "2", "none", "650,000", "", "", "", "25.6% of the maker's peak (MFU)")


def test_a_readme_is_renewed_by_each_command_for_its_own_tables(tmp_path, capsys):
    readme = tmp_path / "README.md"
    marked = "<!-- table: table3@smoke -->\nold\n<!-- end table -->\n<!-- table: bench -->\nold\n<!-- end table -->\n"
    readme.write_text(marked)
    results(tmp_path / "results")
    arguments = ["table", str(tmp_path / "results"), "--readme", str(readme)]
    assert command.main([*arguments, "--check"]) == 1
    assert "is stale: bench;" in capsys.readouterr().err
    assert readme.read_text() == marked
    assert command.main(arguments) == 0
    text = readme.read_text()
    assert text.startswith("<!-- table: table3@smoke -->\nold\n<!-- end table -->\n<!-- table: bench -->\n**bench")
    assert command.main([*arguments, "--check"]) == 0
    report = ["report", str(tmp_path / "results"), "--readme", str(readme), "--check"]
    with pytest.raises(SystemExit):  # the other table is the other command's
        experiments_command.main(report)
    readme.write_text(marked.replace("table: bench", "table: bnech"))
    assert "no table is called 'bnech'" in refused(capsys, *arguments)


def test_this_projects_readme_is_fresh():
    root = pathlib.Path(__file__).parent.parent
    measured = root / "experiments" / "bench" / "results"
    page = measured.parent / "README.md"
    assert command.main(["table", str(measured), "--readme", str(page), "--check"]) == 0


# What is refused


def test_files_that_are_no_results(tmp_path, capsys):
    assert "no results in" in refused(capsys, "table", tmp_path)
    assert "cannot read" in refused(capsys, "table", tmp_path / "none.json")
    (tmp_path / "a.json").write_text("{")
    assert "a.json is not JSON" in refused(capsys, "table", tmp_path)
    (tmp_path / "a.json").write_text('{"kind": "train"}')
    assert "a.json is no result of" in refused(capsys, "table", tmp_path)
    assert "--check needs --readme" in refused(capsys, "table", tmp_path, "--check")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--size=multi31k"], "unknown scale 'multi31k'; the nearest is 'multi30k'"),
        (["train", "--size=table3/bse@smoke"], "the nearest is 'base'"),
        (["train", "--set", "model.heads=1"], "no configuration field 'model.heads'"),
        (["train", "--set", "model.num_heads"], "--set takes FIELD=VALUE"),
        (["train", "--modes=eagre"], "no mode 'eagre'"),
        (["train", "--threads=1000"], "--threads must lie between 1 and"),
        (["train", "--rounds=0"], "must be at least 1; got 0"),
        (["train", "--out=no/such/folder/a.json"], "--out: there is no folder no/such/folder"),
        (["memory", "--peer=jax"], "invalid choice"),
        (["train", "--size=smoke", "--import=no/such.py"], "--import: no Python file "),
        (["decode", "no/such/run", "--peers=none"], "is no/such/run the folder of a run?"),
        (["decode", "no/such/run", "--peers=fairseq"], "no peer 'fairseq'; there are ctranslate2, "),
    ],
)
def test_arguments_that_are_wrong(capsys, monkeypatch, arguments, message):
    monkeypatch.setenv(plugins.VARIABLE, "")
    assert message in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["train", "--size=smoke"], "torch"),
        (["memory", "--size=smoke"], "torch"),
        (["decode", "run"], "ctranslate2"),
        (["decode", "run", "--peers=marian"], "transformers"),
    ],
)
def test_a_missing_peer_says_what_to_install(monkeypatch, capsys, arguments, module):
    monkeypatch.setattr(contestant.importlib.util, "find_spec", lambda name: None)
    message = refused(capsys, *arguments)
    assert f"needs {module}, which is not installed: pip install -e '.[bench]'" in message
    assert message.count("\n") == 1


def test_help_explains_every_figure(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    counts = {"seconds": 1, "batching_s": 0, "source_tokens": 1, "target_tokens": 1, "positions": 4}
    for figure in training._rates(tiny.config(), counts, {"flops": 1.0, "dense": 1.0}).keys() - counts.keys():
        assert f"  {figure} " in text
    for figure in (one.key for figures in table.FIGURES.values() for one in figures):
        assert figure in text


def test_help_says_what_a_card_took_beside_the_roofline(capsys):
    results, over = pathlib.Path(command.__file__).parent / "results", []
    for size in ("base", "big"):
        measured = json.loads((results / f"train-{size}-h100.json").read_text())["contestants"]["tx"]["rounds"]
        step = statistics.median(one["seconds"] / one["steps"] for one in measured)
        over.append(1e3 * step / json.loads((results / f"compiled/{size}-h100.json").read_text())["roofline_ms"])
    with pytest.raises(SystemExit):
        command.main(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert f"An H100 took {min(over):.1f} to {max(over):.1f} times the roofline for base and big@paper" in words


def test_translations_unlike_ours_are_pointed_out():
    result = {"contestants": {"tx": {}, "CTranslate2": {"identical": 0.97}, "CTranslate2 int8": {"identical": 0.5}}}
    (line,) = decoding.unlike(result)
    assert line == "CTranslate2: 97.0% of the translations are ours, less than 98%"


# Peers

KEY = jax.random.key(0)
WHOLE = {"model__d_model": 16, "model__num_heads": 4, "model__d_k": 4, "model__d_v": 4}  # h x d_k = d_model


def peer(*modules):
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed: pip install -e '.[bench]'")


@peer("torch")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("layers", ["Library", "Tuned"])
def test_pytorchs_model_is_ours_and_learns(tmp_path, layers):
    from experiments.bench.contestants.torch_training import Training
    from tx.model.loss import batch_loss
    from tx.training.stacking import TracedHyperparameters

    diff = {"model__dropout": 0.0, "loss__smooth_over": "all", "model__num_layers": 1, "optim__lr_factor": 2.0}
    config = tiny.config(**diff, **(WHOLE if layers == "Library" else {}))
    _, params = tiny.init(config)
    split = sentences.invent(40, 40, 32)
    sentences.save(split, tmp_path)
    peer = Training(config.to_dict(), str(tmp_path), layers=layers, compiled=False, keep_memory=False, threads=1)
    load_into(peer.model, weights.Weights(config.model.to_dict(), weights.flat(params)))
    members = range(6)
    src, tgt = (
        np.stack([np.pad(take(i), (0, 32 - len(take(i)))) for i in members]) for take in (split.source, split.target)
    )
    eps, size = config.loss.label_smoothing, config.model.vocab_size
    shares = np.array([1 - eps + eps / size, *[eps / size] * (size - 1)])
    entropy = -(shares * np.log(shares)).sum()  # ours leaves it out
    ours, _ = batch_loss(
        config, params, {"src": jnp.asarray(src), "tgt": jnp.asarray(tgt)}, TracedHyperparameters.of(config), KEY
    )
    wanted = float(ours) + entropy
    found = float(peer.loss(src.astype(np.int64), tgt.astype(np.int64), np.count_nonzero(tgt)).detach())
    assert found == pytest.approx(wanted, rel=1e-5)
    peer.layout(update_tokens=200, part_tokens=100)
    first = peer.run(target_tokens=200)
    assert first["positions"] >= first["source_tokens"] + first["target_tokens"]
    last = peer.run(target_tokens=5000)
    assert last["steps"] >= 20
    assert last["loss"] < first["loss"] - 0.2
    peer.close()


@peer("torch")
def test_pytorchs_library_cannot_express_row_b():
    from experiments.bench.contestants.torch_model import Library

    with pytest.raises(UserError, match=r"nn.Transformer has h x d_k = h x d_v = d_model"):
        Library(tiny.config(**(WHOLE | {"model__d_k": 2})).model.to_dict())


def load_into(model, found):
    """Puts our parameters into PyTorch's model."""
    import torch

    def put(targets, arrays):
        for target, array in zip(targets, arrays, strict=True):
            assert tuple(target.shape) == array.shape
            with torch.no_grad():
                target.copy_(torch.from_numpy(np.array(array)))

    def both(layer):
        return layer.weight, layer.bias

    def parts(layer):
        """Returns ([(inputs, output) of each attention], inner, outer, norms) of a layer of either kind."""
        if hasattr(layer, "norms"):
            attention = [layer.self_attention, layer.cross_attention]
            return [(both(a.inputs), both(a.output)) for a in attention if a], layer.inner, layer.outer, layer.norms
        attention = [layer.self_attn, getattr(layer, "multihead_attn", None)]
        inputs = [((a.in_proj_weight, a.in_proj_bias), both(a.out_proj)) for a in attention if a]
        norms = [layer.norm1, layer.norm2, *([layer.norm3] if len(inputs) == 2 else [])]
        return inputs, layer.linear1, layer.linear2, norms

    put((model.embedding, model.space), (found.output, found.tree()["target_space"][0]))
    for side in ("encoder", "decoder"):
        stack = getattr(getattr(model.layers, "transformer", model.layers), side)
        for i, layer in enumerate(getattr(stack, "layers", stack)):
            attention, inner, outer, norms = parts(layer)
            for (inputs, output), block in zip(attention, ("self_attention", "cross_attention"), strict=False):
                put(inputs, found.linear(f"{side}_{i}/{block}", "query", "key", "value"))
                put(output, found.linear(f"{side}_{i}/{block}", "output"))
            put(both(inner), found.linear(f"{side}_{i}/feed_forward", "inner"))
            put(both(outer), found.linear(f"{side}_{i}/feed_forward", "outer"))
            for j, norm in enumerate(norms):
                put(both(norm), found.norm(f"{side}_{i}/residual_{j}"))


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    """(folder of a bundle, our translations) of a small random model."""
    from experiments.bench.contestants.tx_decoding import Decoding

    diff = {"model__d_k": 8, "model__d_v": 8, "model__num_layers": 1, "model__sinusoid_layout": "interleaved"}
    diff |= {"decode__beam": 3, "decode__alpha": 0.0, "decode__extra_length": 12, "decode__batch_tokens": 256}
    config = tiny.config(**diff)
    _, params = tiny.init(config, seed=SEED)
    params = jax.tree.map(np.array, params)
    params["embedding"][0] = 0.0  # padding is never the best of 40 tokens
    norm = params["decoder_0"]["residual_2"]["norm"]
    norm["bias"] = 2 * (norm["bias"] + 2 * params["embedding"][1])  # or hardly any output would end
    norm["scale"] = 2 * norm["scale"]
    rng = np.random.default_rng(0)
    sources = [tiny.sentences(rng, [length])[0] for length in (8, 5, 7, 4, 8, 6, 3, 8)]
    folder = tmp_path_factory.mktemp("bundle")
    bundle.save(folder, config.to_dict(), params, sources)
    ours = Decoding(str(folder))
    ours.translate()
    lengths = list(map(len, ours.outputs()))
    assert len(set(map(tuple, ours.outputs()))) == 8  # else little was compared
    assert len(set(lengths)) > 3
    assert max(lengths) < 14  # all of them ended
    return str(folder), ours


@peer("ctranslate2")
@pytest.mark.filterwarnings("default")
def test_ctranslate2_translates_as_ours_does(translated):
    from experiments.bench.contestants.ctranslate2_decoding import Decoding

    folder, ours = translated
    theirs = Decoding(folder, threads=1, compute_type="float32")
    assert theirs.setting(inter=1, batch=3) == {"compute_type": "float32"}
    assert theirs.translate()["sentences"] == 8
    outputs = theirs.outputs()
    theirs.close()
    assert outputs == ours.outputs()


@peer("torch", "transformers")
@pytest.mark.filterwarnings("default")
def test_marian_translates_as_ours_does(translated):
    from experiments.bench.contestants.marian_decoding import Decoding

    folder, ours = translated
    theirs = Decoding(folder, threads=1, keep_memory=False)
    theirs.setting(batch=3)
    assert theirs.translate()["sentences"] == 8
    assert theirs.outputs() == ours.outputs()


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", None),
        ("NVIDIA L40", None),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", None),
    ],
)
def test_a_peak_is_that_of_the_card_itself(kind, peak):
    """As NVIDIA's data sheets have it; an L40S is no L4, and cards for PCIe are slower."""
    found = [one for name, one in machines.DENSE_PEAKS.items() if machines.is_called(kind, name)]
    assert found == ([] if peak is None else [peak])


def test_a_model_that_ends_every_sentence_at_once_is_measured(monkeypatch, tmp_path):
    config = sentences.config_of("smoke", {"data.target": "zh"})
    ids = sentences.invent(2, 300, 8)
    decoded = types.SimpleNamespace(decode=lambda output: "")
    data = types.SimpleNamespace(splits={"test": ids}, vocabulary=decoded, pairs=lambda split: [("a", "b"), ("c", "d")])
    monkeypatch.setattr("tx.decoding.trained_model.open_run", lambda *_: (config, ({}, 1, "last"), data))
    monkeypatch.setattr("tx.evaluation.translation.split_names", lambda *_: ["test"])
    rates = {"sentences_per_s": 4.0, "tokens_per_s": 0.0}
    results = {label: {"rounds": [dict(rates)], "median": dict(rates)} for label in ("tx", "CTranslate2")}
    monkeypatch.setattr(decoding, "_contest", lambda *_: (results, {label: [[], []] for label in results}))
    made = decoding.measure_decoding(tmp_path, split=None, beam=4, peers=[], count=0, threads=1, turns=1)
    assert made["ratios"] == {"CTranslate2": {"sentences_per_s": {"median": 1.0, "min": 1.0, "max": 1.0}}}
    assert made["contestants"]["tx"]["bleu"] == 0.0


@pytest.mark.parametrize(("language", "tokenizer"), [("zh", "zh"), ("th", "char"), ("de", "13a")])
def test_bleu_is_of_the_tokens_of_the_target_language(language, tokenizer):
    translations, references = ["我们明天早上去北京看朋友"], ["我们明天晚上去北京看朋友"]
    wanted = sacrebleu.BLEU(force=True, tokenize=tokenizer).corpus_score(translations, [references]).score
    assert decoding._bleu(translations, references, language) == wanted
    assert (wanted > 50) == (language != "de")


@pytest.mark.parametrize(("count", "taken"), [(0, 2), (1, 1), (2, 2), (3, 2)])
def test_no_more_sentences_are_translated_than_there_are(count, taken):
    ids = sentences.invent(2, 300, 8)
    got = decoding._sources(ids, count)
    assert len(got) == taken
    for i, source in enumerate(got):
        np.testing.assert_array_equal(source, ids.source(i))
