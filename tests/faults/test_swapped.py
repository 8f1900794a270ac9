"""Identities swapped: what is whole, but another's, lies where a run's own belongs.

A thing of a run (its newest or best checkpoint, config.json, metrics.jsonl, result.json, an entry of the cache) makes
way for the same thing of another seed, step, depth or text, or of a run on other threads or versions. Then the run is
launched again, or its parameters are read. Whatever was swapped, the numbers that come of it are those of a run that
was left alone, or nothing comes of it but a line that says why.

Training is stubbed: parameters, and all that result.json says, come of what every step has met.
"""

import contextlib
import dataclasses
import io
import pathlib
import shutil

import numpy as np
import pytest
import tiny

from launch import local, worker
from tx import files
from tx.data import cache, tokenized
from tx.decoding.trained_model import open_run
from tx.errors import UserError
from tx.evaluation.translation import TranslatedSplit
from tx.runs import provenance, run_config
from tx.runs.run_dir import RunDir
from tx.training import experiment, loop, outcome
from tx.training.step import TrainState

pytestmark = pytest.mark.slow

ROW, VOCABULARY = "table3/base@multi30k", 300
FIELDS = {name: value for name, value in tiny.SIZES.items() if name.startswith(("model.", "data."))} | {
    "model.vocab_size": VOCABULARY,
    "model.num_layers": 1,
    "data.batch_rows": 2,
    "optim.warmup_steps": 10,
    "train.steps": 6,
    "train.log_every": 1,
    "train.eval_every": 2,
    "train.checkpoint_every": 2,
    "train.keep_checkpoints": 2,
    "train.select": "best",
    "train.steps_per_dispatch": 1,
    "decode.splits": "test_2016_flickr",
    "decode.extra_length": 1,
}
NEWEST, LAST, BEST = "4", "6", "2"  # checkpoints of a run that was stopped, and of one that is done
SENTENCES = {"train": 60, "val": 6, "test_2016_flickr": 5, "test_2017_flickr": 4, "test_2017_mscoco": 3}
# What of a result is of this process, not of the run.
PROCESS = ("timing", "code", "versions", "device", "origins", "environment")
OTHERS = {
    "seed": {},
    "step": {"train.steps": 8},
    "depth": {"model.num_layers": 2},
    "text": {},
    "threads": {},
    "versions": {},
}


def write_text(folder, word="Satz"):
    """A small Multi30k."""
    (folder / "multi30k").mkdir(parents=True, exist_ok=True)
    for stem, count in SENTENCES.items():
        for language in ("en", "de"):
            lines = [f"{language} {word} {stem} {i * 7919 % 101}\n" for i in range(count)]
            (folder / "multi30k" / f"{stem}.{language}").write_text("".join(lines))


def number(params):
    """All that the parameters have come of, in one number."""
    return float(np.asarray(params["embedding"])[0, 1])


def make_step(config):
    def step(state, batch):
        table, now = state.params["embedding"], state.step + 1
        met = [int(np.ravel(batch[side]) @ np.arange(1, batch[side].size + 1)) for side in ("src", "tgt")]
        mixed = number(state.params) / 2 + sum(met) % 97 + config.train.seed + config.model.num_layers
        table = table.at[0, 0].set(now.astype(table.dtype)).at[0, 1].set(mixed)
        return TrainState(now, state.params | {"embedding": table}, state.opt_state), tiny.metrics(1 / (1 + mixed))

    return step


def dev(params):
    """The lowest after step 2."""
    nll = 1 + abs(float(np.asarray(params["embedding"])[0, 0]) - 2) + number(params) / 1e4
    return {"nll": nll, "ppl": float(np.exp(nll)), "tokens": 9}


def translations(config, params, data, *_):
    """Scores that are other ones for other parameters, subwords, tokens or sentences."""
    split = data.splits[config.decode.splits]
    found = {"bleu": number(params), "chrf": float(split.src_ids.sum()), "bleu_lower": float(split.tgt_offsets.sum())}
    found |= {"bleu_tokenized": float(sum(map(ord, "".join(map("".join, data.pairs(config.decode.splits))))))}
    scores = found | {"bleu_compound": 0.0, "exact_match": 0.0, "signature": ""}
    return {config.decode.splits: TranslatedSplit(scores, [], [], [])}


@pytest.fixture(scope="module")
def stubbed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step_over_devices", make_step)
        patch.setattr(loop, "make_eval", lambda *_: lambda params: [dev(params)])
        patch.setattr(experiment, "measure_dev", lambda config, data, params: [dev(one) for one in params])
        patch.setattr(outcome, "evaluate_translations", translations)
        patch.setattr(local, "launch", in_this_process)
        yield


def in_this_process(runs, groups, *_):
    for group in groups:
        for run in group:
            run.hand_over()
            request = run_config.handed_over(run.folder)
            experiment.run_experiments([(request.config, request.folder)])
    return worker.Tally()


@dataclasses.dataclass
class Outcome:
    """What a launch has printed, its exit status, and the numbers of result.json, if there is one."""

    said: str
    status: int
    result: dict | None


class Laboratory:
    """Runs of one row: `clean`, and {whose: another's folder}, all done on the same machine and cache."""

    def __init__(self, folder):
        self.text, self.folder = folder / "text", folder
        write_text(self.text)
        assert self.launch(folder / "clean").status == 0
        self.clean, self.others = run_in(folder / "clean"), {}
        for whose, fields in OTHERS.items():
            write_text(self.text, "Wort" if whose == "text" else "Satz")
            with elsewhere(whose):
                assert self.launch(folder / whose, seeds=2 if whose == "seed" else 1, **fields).status == 0
            self.others[whose] = run_in(folder / whose, seed=2 if whose == "seed" else 1)
        write_text(self.text)

    def launch(self, workdir, seeds=1, **fields):
        """Launches the row as a user does."""
        given = FIELDS | {"data.dir": self.text} | fields
        argv = [ROW, f"--workdir={workdir}", f"--seeds={seeds}", "--no_rehearsal"]
        argv += [f"--set={name}={value}" for name, value in given.items()]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                status = local.main(argv, prepare=lambda runs: None, report=lambda folders: None)
            except SystemExit as end:
                status = end.code
        run = run_in(workdir)
        return Outcome(said.getvalue(), status, run.read("result") if run.result.exists() else None)

    def copy(self, workdir, done):
        """A copy of the clean run, done or stopped after its checkpoint before last."""
        shutil.copytree(self.folder / "clean", workdir)
        run = run_in(workdir)
        if not done:
            run.result.unlink()
            shutil.rmtree(run.checkpoints / LAST)
        return run


@contextlib.contextmanager
def elsewhere(whose):
    """As on a machine of other threads, or with other versions."""
    describe = provenance.describe
    change = {"threads": {"device": {"threads": 7}}, "versions": {"versions": {"jax": "0.0.1"}}}.get(whose, {})

    def changed(config=None):
        return {name: value | change[name] if name in change else value for name, value in describe(config).items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "describe", changed)
        yield


def run_in(workdir, seed=1):
    return RunDir(workdir / "table3@multi30k" / "base" / f"seed{seed}")


@pytest.fixture(scope="module")
def laboratory(stubbed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("swapped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TX_CACHE_DIR", str(folder / "cache"))
        patch.delenv("TX_DATA_DIR", raising=False)
        yield Laboratory(folder)


def numbers(result):
    return {name: value for name, value in result.items() if name not in PROCESS}


def put(source, target):
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def swap(laboratory, run, thing, whose):
    """Puts another's in the place of a thing of a run."""
    other = laboratory.others[whose]
    match thing, whose:
        case "best", "step":
            put(run.checkpoints / NEWEST, run.checkpoints / BEST)
        case "best", _:
            put(other.checkpoints / BEST, run.checkpoints / BEST)
        case "checkpoint", "step":
            newest = max(run.checkpoints.iterdir(), key=lambda path: path.name)
            put(run.checkpoints / BEST, newest)
        case "checkpoint", _:
            newest = max(run.checkpoints.iterdir(), key=lambda path: path.name)
            put(other.checkpoints / newest.name, newest)
        case "metrics", "step":
            lines = run.metrics.read_bytes().splitlines(keepends=True)
            run.metrics.write_bytes(b"".join(lines[:3]))  # as after step 2
        case _:
            put(getattr(other, thing), getattr(run, thing))


REFUSED, ANEW, STALE = "error: ", "begun anew; see ", "stale  "
EARLIER, HARMLESS = "an earlier one is taken", ""
# Of a run that was stopped: {thing: {whose: what a launch says or does}}.
STOPPED = {
    "checkpoint": dict.fromkeys(OTHERS, ANEW),
    "best": dict.fromkeys(OTHERS, ANEW),
    "metrics": dict.fromkeys(OTHERS, ANEW) | {"step": EARLIER},
    "config": {
        **{"seed": REFUSED, "step": REFUSED, "depth": REFUSED},
        **{"text": HARMLESS, "threads": HARMLESS, "versions": HARMLESS},  # what it says of these is written anew
    },
    "result": {
        **{"seed": REFUSED, "step": REFUSED, "depth": REFUSED, "text": STALE},
        **{"threads": HARMLESS, "versions": HARMLESS},  # it is the same run's, and says where it was made
    },
}
# Of one that is done: what a launch says of it.
DONE = {
    "metrics": dict.fromkeys(OTHERS, HARMLESS),
    "config": dict.fromkeys(OTHERS, HARMLESS),  # result.json has the configuration, too
    "result": STOPPED["result"],
}
# Of one that is done: what is said where its parameters are read.
READ = {
    "checkpoint": dict.fromkeys(OTHERS, REFUSED),
    "best": dict.fromkeys(OTHERS, REFUSED),
    "config": dict.fromkeys(OTHERS, REFUSED) | {"threads": HARMLESS, "versions": HARMLESS},
}
# Of the cache: (kind, whose entry takes the place).
ENTRIES = [
    *(("vocabularies", whose) for whose in ("text", "size")),
    *(("tokens", whose) for whose in ("text", "size", "split")),
    *(("tfds", whose) for whose in ("text", "direction")),
]


def cases(table):
    return [(thing, whose, wanted) for thing, row in table.items() for whose, wanted in row.items()]


def test_every_thing_is_swapped_with_everyones():
    tables = (STOPPED, DONE, READ)
    assert all(set(row) == set(OTHERS) for table in tables for row in table.values())
    assert sum(len(cases(table)) for table in tables) + len(ENTRIES) >= 30


def notes(said):
    return [line for line in said.splitlines() if line.startswith(("note: ", "warning: ", "error: ", "stale  "))]


@pytest.mark.parametrize(
    ("done", "thing", "whose", "wanted"),
    [(done, *case) for done, table in ((False, STOPPED), (True, DONE)) for case in cases(table)],
)
def test_a_run_that_is_launched_again_ends_as_its_own(laboratory, tmp_path, done, thing, whose, wanted):
    run = laboratory.copy(tmp_path / "run", done)
    swap(laboratory, run, thing, whose)
    before = run.read("result") if run.result.exists() else None
    found = laboratory.launch(tmp_path / "run")
    said = notes(found.said)
    assert len(said) == (wanted != HARMLESS), said
    assert wanted in "".join(said)
    if wanted in (REFUSED, STALE):
        assert found.status == (2 if wanted == REFUSED else 0)
        assert found.result == before
    else:
        assert found.status == 0
        assert numbers(found.result) == numbers(laboratory.clean.read("result"))


@pytest.mark.parametrize(("thing", "whose", "wanted"), cases(READ))
def test_the_parameters_that_are_read_are_the_runs_own(laboratory, tmp_path, thing, whose, wanted):
    run = laboratory.copy(tmp_path / "run", done=True)
    swap(laboratory, run, thing, whose)
    if wanted == REFUSED:
        said = "it is not this run's; put its own back, or train it anew|the text of multi30k is not what it was"
        with pytest.raises(UserError, match=said) as caught:
            open_run(run, {})
        assert "\n" not in str(caught.value)
    else:
        assert number(open_run(run, {})[1].params) == number(open_run(laboratory.clean, {})[1].params)


def entry(laboratory, kind, whose=""):
    """Where the cache has what a run is trained on."""
    write_text(laboratory.text, "Wort" if whose == "text" else "Satz")
    config = run_config.read_config(laboratory.clean)
    config.data.source, config.data.target = ("de", "en") if whose == "direction" else ("en", "de")
    data = tokenized.prepare(config.data, VOCABULARY - 10 if whose == "size" else VOCABULARY, lambda line: None)
    write_text(laboratory.text)
    made = {
        "vocabularies": cache.fingerprint(1, data.corpus.fingerprint, data.vocabulary.size),
        "tokens": f"{data.fingerprint}/{'validation' if whose == 'split' else 'train'}",
        "tfds": f"multi30k.{config.data.source}-{config.data.target}/parallel_text/"
        f"1.0.{int(data.corpus.fingerprint[:12], 16)}",
    }
    _ = data.splits["train"], data.splits["validation"]
    return pathlib.Path(kind) / made[kind]


@pytest.mark.parametrize(("kind", "whose"), ENTRIES)
def test_an_entry_of_the_cache_is_that_of_its_name(laboratory, tmp_path, monkeypatch, kind, whose):
    mine, other = entry(laboratory, kind), entry(laboratory, kind, whose)
    assert mine != other
    shutil.copytree(cache.root(), tmp_path / "cache")
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    key = (cache.root() / mine / files.KEY).read_text()
    put(cache.root() / other, cache.root() / mine)
    if kind == "tfds":  # else nothing looks at it
        for made in ("vocabularies", "tokens"):
            shutil.rmtree(cache.root() / made)
    found = laboratory.launch(tmp_path / "run")
    assert (cache.root() / mine / files.KEY).read_text() == key
    assert numbers(found.result) == numbers(laboratory.clean.read("result"))
