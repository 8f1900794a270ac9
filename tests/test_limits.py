"""Limits of learned positions: they hold for every text that a model meets, and are checked before it is trained."""

import dataclasses
import io
import itertools
import math
import sys
import types

import handful
import numpy as np
import pytest
import tiny
from fabricated import cells, put, table_of

from tx import decode, evaluate
from tx.data import tokenized
from tx.data.tokenized import TokenizedSplit
from tx.decoding import text as text_module
from tx.decoding import trained_model
from tx.decoding.limits import LONGEST, LONGEST_LINE, check_corpus, describe_long_line, find_long_sources
from tx.errors import UserError
from tx.evaluation.translation import split_names
from tx.runs.run_dir import RunDir
from tx.training import experiment, loop
from tx.training.checks import check_config

EXTRA = 3
TABLE = 24  # positions


def config(**diff):
    settings = {"model.positions": "learned", "model.max_positions": TABLE, "decode.extra_length": EXTRA}
    settings |= {"data.row_length": 16, "model.vocab_size": handful.VOCAB_SIZE, "model.num_layers": 1}
    settings |= {"train.steps": 2, "train.eval_every": 1, "decode.splits": "test", "decode.beam": 1}
    return tiny.config(**{name.replace(".", "__"): value for name, value in (settings | diff).items()})


def split(pairs):
    """Sentences of so many tokens, (source, target)."""
    sides = []
    for lengths in zip(*pairs, strict=True):
        ids = [[*[5] * (length - 1), 1] for length in lengths]
        sides += [np.array(list(itertools.chain(*ids)), np.int32), np.cumsum([0, *lengths], dtype=np.int64)]
    return TokenizedSplit(*sides)


def text(**lengths):
    """The data of a run; `lengths` of some splits."""
    others = {"train": [(4, 4)], "validation": [(4, 4)], "test": [(4, 4)]}
    return dataclasses.replace(handful.prepared(), splits={k: split(v) for k, v in (others | lengths).items()})


@pytest.mark.parametrize(
    ("lengths", "task", "wanted"),
    [
        ({"validation": [(3, 3), (TABLE, TABLE)]}, "sentence", None),
        ({"validation": [(3, 3), (3, TABLE + 1)]}, "sentence", ("validation, line 2, target of 25 tokens: ", 25)),
        ({"validation": [(TABLE + 2, 3), (3, 25)]}, "sentence", ("validation, line 1, source of 26 tokens: ", 26)),
        ({"test": [(3, 99), (16, 99)]}, "sentence", None),  # of references no model reads anything; 16 + 3 fit
        ({"test": [(3, 3), (5, 5), (17, 3)]}, "sentence", ("test, line 3, source of 17 tokens, in eights, with ", 27)),
        ({"test": [(24, 3), (3, 24)]}, "last", None),
        ({"test": [(3, 3), (3, 25)]}, "last", ("test, line 2, source or target of 25 tokens, in eights: ", 32)),
        ({"train": [(3, 99)]}, "sentence", None),  # left out, and counted
        ({"validation": [(3, 25)], "test": [(40, 3)]}, "sentence", ("test, line 1, source of 40 tokens", 43)),
    ],
)
def test_the_longest_sentence_is_named(lengths, task, wanted):
    c, data = config(**{"decode.task": task}), text(**lengths)
    sinusoidal = config(**{"decode.task": task, "model.positions": "sinusoidal"})
    check_corpus(sinusoidal, data, split_names(sinusoidal, data))  # has no limit
    if wanted is None:
        check_corpus(c, data, ["test"])
        return
    with pytest.raises(UserError) as caught:
        check_corpus(c, data, ["test"])
    start, needed = wanted
    assert str(caught.value).startswith(start)
    assert f"a sentence of {needed} tokens is longer than the learned position table of 24 rows" in str(caught.value)
    enough = config(**{"decode.task": task, "model.max_positions": needed})
    check_corpus(enough, data, ["test"])  # what the message says to set suffices


def test_one_stack_has_room_for_two_sentences_of_the_greatest_length():
    c = config(**{"model.positions": "sinusoidal", "model.architecture": "decoder_only"})
    check_corpus(c, text(validation=[(3, 3), (LONGEST, LONGEST)], test=[(LONGEST, 3)]), ["test"])
    assert not find_long_sources(c, {1: np.full(LONGEST, 5, np.int32)})
    with pytest.raises(UserError, match=r"line 1, source of 8208 tokens, .*: a sentence has 8192 tokens at most"):
        check_corpus(c, text(test=[(LONGEST + 16, 3)]), ["test"])
    with pytest.raises(UserError, match="validation, line 2, target of 8193 tokens: a sentence has 8192 tokens"):
        check_corpus(c, text(validation=[(3, 3), (3, LONGEST + 1)]), ["test"])
    check_corpus(config(**{"model.architecture": "decoder_only"}), text(validation=[(21, 3)]), [])  # of a table of 24
    for row_length, needed in ((48, 96), (25, 50)):
        learned = config(**{"model.architecture": "decoder_only", "data.row_length": row_length})
        with pytest.raises(UserError, match=rf"^data.row_length={row_length} .* need {needed} .*=24 learns fewer"):
            check_config(learned)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_an_endless_sentence_is_refused_whatever_the_positions(name):
    c = config(**{"model.positions": "sinusoidal"})
    check_corpus(c, text(**{name: [(3, 3), (LONGEST, 3)]}), ["test"])
    with pytest.raises(
        UserError, match=f"{name}, line 2, source of .*: a sentence has 8192 tokens at most; shorten it"
    ):
        check_corpus(c, text(**{name: [(3, 3), (LONGEST + 8, 3)]}), ["test"])
    (found,) = find_long_sources(c, {5: np.full(9000, 5, np.int32)}).values()
    assert found.startswith("source of 9000 tokens")
    assert "8192 tokens at most" in found
    longer = config(**{"model.positions": "sinusoidal", "data.row_length": 2 * LONGEST})
    check_corpus(longer, text(**{name: [(3, 3), (LONGEST + 8, 3)]}), ["test"])


def test_a_long_dev_sentence_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenized, "prepare", lambda *_: text(validation=[(3, 3), (25, 3)]))
    monkeypatch.setattr(experiment, "train", lambda *_: pytest.fail("it trains"))
    run = RunDir(tmp_path / "run")
    with pytest.raises(UserError, match="validation, line 2, source of 25 tokens"):
        experiment.run_experiments([(config(), run)])
    assert not run.path.exists()


def test_lines_that_are_given_have_their_numbers():
    sources = [np.full(length, 5, np.int32) for length in (3, 17, 4)]
    found = find_long_sources(config(), dict(zip((1, 7, 9), sources, strict=True)))
    assert list(found) == [7]
    assert found[7].startswith("source of 17 tokens, in eights, with decode.extra_length=3: a sentence of 27 tokens is")
    assert find_long_sources(config(), {}) == {}
    assert describe_long_line("x" * LONGEST_LINE) == ""
    assert describe_long_line("x" * (LONGEST_LINE + 1)) == "has 65,537 characters, more than 65,536"


def test_decode_answers_a_long_line_by_an_empty_one_and_goes_on(monkeypatch, capsys):
    """Every other line is translated, here into itself."""
    data = handful.prepared()
    opened = trained_model.OpenedModel(config(), types.SimpleNamespace(params=None), data.vocabulary)
    monkeypatch.setattr(decode, "open_model", lambda *_: opened)
    monkeypatch.setattr(text_module, "Translator", lambda *_: lambda sources: [source[:-1] for source in sources])
    text = [b"a red house", b"", b"where is the book ? " * 9, b"x" * (LONGEST_LINE + 1), b"it is raining"]
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"\n".join(text))))
    assert decode.main(["run"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["a red house", "", "", "", "it is raining"]
    source, characters = err.splitlines()
    assert source.startswith("error: standard input, line 3, source of ")
    assert source.endswith("; it is answered by an empty line")
    assert characters == (
        "error: standard input, line 4, has 65,537 characters, more than 65,536; it is answered by an empty line"
    )


def test_evaluate_refuses_before_it_evaluates(monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "open_run", lambda *_: (config(), None, text(validation=[(3, 25)])))
    monkeypatch.setattr(evaluate, "measure_dev", lambda *_: pytest.fail("it evaluates"))
    with pytest.raises(SystemExit):
        evaluate.main(["run"])
    assert capsys.readouterr().err.startswith("error: validation, line 1, target of 25 tokens: ")


def test_a_dev_loss_that_is_not_finite_is_called_that(tmp_path):
    training = {"steps": 9, "epochs": 1.0, "target_tokens": 9, "flops": 1.0}
    for row, ppl, loss in (
        ("base", math.nan, 2.0),
        ("E", math.nan, math.nan),
        ("C/N=2", 1e9, 2.0),
        ("C/N=4", 9.0, 2.0),
    ):
        put(tmp_path, f"table3/{row}@smoke", 1, ppl=ppl, train=training | {"final_loss": loss})
    table = table_of(tmp_path)
    runs = {row: cell["runs"] for row, cell in cells(table).items()}
    assert runs["base"] == "done, dev loss not finite [1]"
    assert runs["E"] == runs["C/N=2"] == "done, diverged [2]"
    assert runs["C/N=4"] == "done"
    assert [note for note in table.notes if note.startswith("[1] Dev loss not finite: the training loss is finite")]


@pytest.mark.slow
def test_training_says_so_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tokenized, "prepare", lambda *_: handful.prepared())
    monkeypatch.setattr(loop, "make_eval", lambda *_: lambda _: [{"nll": math.nan, "ppl": math.nan}])
    run = RunDir(tmp_path / "run")
    experiment.run_experiments([(config(**{"model.positions": "sinusoidal", "data.row_length": 32}), run)])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert [line.partition(": the dev loss is ")[2] for line in said] == [
        f"nan after step {step}, the training loss is finite" for step in (1, 2)
    ]
    assert math.isfinite(run.read("result")["train"]["final_loss"])
