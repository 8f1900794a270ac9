"""Rows of another text, or of other subwords: shown, said to be such, and compared with nothing."""

import json
import math
import shutil

import pytest
from fabricated import cells, put
from test_grid import launched

from experiments import __main__ as command
from experiments import tuning
from experiments.report import (
    agreement_figure,
    agreement_table,
    bootstrap,
    claims_table,
    differences_table,
    findings,
    grid,
    grid_table,
    lengths_table,
    main_table,
    noise,
    reading,
    scores_table,
    summary_table,
    transfer,
    verdicts,
)
from experiments.report.metrics import BLEU, NLL, PPL
from tx.errors import UserError

TEXTS = "The runs were trained on different texts: their numbers cannot be compared."
SUBWORDS = "The runs were trained on different vocabularies: their perplexities cannot be compared."
OTHER = {"texts": {"fingerprint": "other", "vocabulary_fingerprint": "other"}, "subwords": {"fingerprint": "f"}}
STATS = [[4, 4, 4, 3, 2, 1, 4, 3, 2, 1], [4, 4, 3, 2, 1, 0, 4, 3, 2, 1]] * 4


def fill(folder, other=None):
    """Three seeds of base and gelu of one text, swiglu of another or of other subwords; each with one test set."""
    for row, nll in {"relu": 1.0, "gelu": 1.1, "swiglu": 0.5}.items():
        for seed, shift in enumerate((-0.01, 0.0, 0.01), 1):
            data = {"corpus": "c", "fingerprint": "f", "vocabulary_fingerprint": "v"}
            if row == "swiglu" and other:
                data |= {"vocabulary_fingerprint": "other"} | OTHER[other]
            ppl, bleu = math.exp(nll + shift), 20.0 + nll + shift
            run = put(folder, f"feed_forward/{row}@smoke", seed, ppl=ppl, bleu=bleu, data=data)
            result = json.loads((run / "result.json").read_text())
            result["tests"]["test"]["stats"] = STATS
            (run / "result.json").write_text(json.dumps(result))
    (found,) = reading.read([folder])
    return found


TABLES = {
    "main": main_table.build,
    "short": summary_table.build,
    "differences": differences_table.build,
    "claims": claims_table.build,
    "scores": scores_table.build,
    "lengths": lengths_table.build,
}


@pytest.mark.parametrize("other", [None, "texts", "subwords"])
def test_every_table_that_shows_such_rows_says_so(tmp_path, other):
    found = fill(tmp_path, other)
    said = {
        name: [note for note in build(found).notes if "trained on different" in note] for name, build in TABLES.items()
    }
    wanted = {None: [], "texts": [TEXTS], "subwords": [SUBWORDS]}[other]
    in_words = ("scores", "lengths") if other == "subwords" else ()  # whose numbers are not per subword
    assert said == {name: [] if name in in_words else wanted for name in TABLES}
    assert [note for note in transfer.build([found]).notes if "trained on" in note] == [f"smoke: {w}" for w in wanted]
    assert [line for line in findings.to_markdown(found).split("\n") if "trained on" in line] == wanted


def test_they_are_compared_with_nothing(tmp_path):
    found = fill(tmp_path, "texts")
    assert noise.intervals(found, NLL).keys() == noise.intervals(found, BLEU).keys() == {"gelu"}
    assert bootstrap.bleu_intervals(found).keys() == {"gelu"}
    assert list(cells(differences_table.build(found))) == ["gelu"]
    # The others are judged as if the row were not there.
    alone = fill(tmp_path / "without")
    rest = noise.compare_rows(alone.rows[0], [row for row in alone.rows if row.variant.name == "gelu"], NLL)
    assert noise.intervals(found, NLL)["gelu"] == rest.intervals["gelu"]
    told = {one.claim.row: (one.word, one.why) for one in verdicts.judge(found)}
    assert told["swiglu"] == ("undecided", "of another text: swiglu")
    assert told["gelu"][1] != told["swiglu"][1]
    assert "of another text: swiglu" in findings.to_markdown(found)
    assert not [note for note in main_table.build(found).notes if note == differences_table.UNKNOWN]


def test_other_subwords_leave_bleu_comparable(tmp_path):
    found = fill(tmp_path, "subwords")
    assert noise.intervals(found, NLL).keys() == {"gelu"}
    assert noise.intervals(found, BLEU).keys() == bootstrap.bleu_intervals(found).keys() == {"gelu", "swiglu"}
    rows = {row.variant.name: row for row in found.rows}
    pairs = {measure: noise.of_one_text(measure, rows["relu"], rows["swiglu"]) for measure in (NLL, PPL, BLEU)}
    assert pairs == {NLL: False, PPL: False, BLEU: True}
    record = {one["row"]: one for one in differences_table.build(found).records}["swiglu"]
    assert (record["log_ppl_difference"], record["ppl_p_equivalent"]) == (None, None)
    assert record["bleu_difference"] is not None


@pytest.mark.parametrize("field", ["data.lowercase=false,true", "data.tokenizer=bpe,char"])
def test_a_grid_over_them_has_no_best_point(tmp_path, field):
    def data(config):
        text = f"text {config.data.lowercase}"
        return {"corpus": "c", "fingerprint": text, "vocabulary_fingerprint": f"{text} {config.data.tokenizer}"}

    found = launched(tmp_path, f"--grid={field}", ppl=lambda config, seed: 5.0 + seed / 100, data=data)
    (one,) = grid.of(found)
    lower = "lowercase" in field
    assert one.best("PPL") is None
    assert (one.best("BLEU") is None) == lower
    assert (TEXTS if lower else SUBWORDS) in grid_table.build(found).notes
    (name,) = [field.partition("=")[0]]
    with pytest.raises(UserError, match=f"whose unit {name} changes; use --grid {name}="):
        tuning.check([name])


def test_a_grid_whose_first_point_is_missing_has_no_best_point_either(tmp_path):
    def data(config):
        return {"corpus": "c", "fingerprint": "f", "vocabulary_fingerprint": config.data.tokenizer}

    def ppl(config, seed):
        return None if config.data.tokenizer == "bpe" else 5.0 + seed / 100

    found = launched(tmp_path, "--grid=data.tokenizer=bpe,char,unigram", ppl=ppl, data=data)
    (one,) = grid.of(found)
    assert one.best("PPL") is None
    assert one.best("BLEU") is not None


def test_agreement_with_the_paper_is_of_the_rows_of_base_s_text(tmp_path):
    for folder, rows in (("all", ("base", "C/N=2", "C/N=4", "C/N=8")), ("without", ("base", "C/N=2", "C/N=4"))):
        for i, row in enumerate(rows):
            for seed in (1, 2, 3):
                data = {"corpus": "c", "fingerprint": "other" if row == "C/N=8" else "f", "vocabulary_fingerprint": "v"}
                put(tmp_path / folder, f"table3/{row}@smoke", seed, ppl=5.0 + i + seed / 10, bleu=30.0 - i, data=data)
    told = [agreement_table.build(reading.read([tmp_path / folder])[0]).records[0] for folder in ("all", "without")]
    keys = [key for key in told[0] if key.startswith(("ppl", "bleu"))]
    assert keys
    assert [told[0][key] for key in keys] == [told[1][key] for key in keys]
    assert [(one["compared"], one["left_out"]) for one in told] == [(3, 17), (3, 17)]
    shutil.rmtree(tmp_path / "all/table3@smoke/base")  # nobody knows which of the texts is meant
    (found,) = reading.read([tmp_path / "all"])
    assert agreement_table.build(found).records[0]["ppl_tau_b"] is None


def test_no_effect_and_no_picture_has_a_row_of_other_subwords(tmp_path):
    found = fill(tmp_path, "subwords")
    assert list(cells(transfer.build([found]))) == ["gelu"]
    for row, vocabulary in (("base", "v"), ("C/N=2", "v"), ("C/N=4", "other")):
        data = {"corpus": "c", "fingerprint": "f", "vocabulary_fingerprint": vocabulary}
        put(tmp_path / "paper", f"table3/{row}@smoke", 1, data=data)
    (found,) = reading.read([tmp_path / "paper"])
    assert [point.row for point in agreement_figure.points(found)] == ["C/N=2"]


def test_a_comparison_goes_row_by_row(tmp_path, capsys):
    """A sweep whose rows are of several texts has no regression against itself; one row of another text is named."""
    fill(tmp_path / "a", "texts")
    again = ["compare", str(tmp_path / "a"), str(tmp_path / "a"), "--fail-on=regression"]
    assert command.main(again) == 0
    fill(tmp_path / "b")
    with pytest.raises(SystemExit):
        command.main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--fail-on=regression"])
    assert "feed_forward@smoke: swiglu: A and B of different texts" in capsys.readouterr().err
