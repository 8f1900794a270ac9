"""The table of a sweep's results, whatever became of its runs."""

import json
import re
import statistics

import pytest
from fabricated import SIGNATURE, cells, fail, put, table_of

from experiments import registry
from experiments.report import costs_table, reading, scores_table, tables
from experiments.report.results import KINDS
from launch import local


def test_one_seed_beside_the_paper(tmp_path):
    put(tmp_path, "table3/base@smoke", 1, ppl=5.004, bleu=30.04)
    put(tmp_path, "table3/B/d_k=16@smoke", 1, ppl=5.5, bleu=28.0, params=360_096)
    table = cells(table_of(tmp_path))
    assert list(table) == [v.name for v in registry.variants("table3")]
    row = table["B/d_k=16"]
    assert (row["PPL paper"], row["PPL ours"], row["BLEU paper"], row["BLEU ours"]) == (
        "5.16",
        "5.50",
        "25.1",
        "28.0",
    )
    assert (row["ΔPPL paper"], row["ΔPPL ours"]) == ("+0.24", "+0.50")
    assert (row["ΔBLEU paper"], row["ΔBLEU ours"]) == ("-0.7", "-2.0")
    assert (row["params 10^6 paper"], row["params 10^6 ours"], row["runs"]) == ("58", "0.36", "done")
    base = table["base"]
    assert (base["PPL ours"], base["BLEU ours"], base["ΔPPL paper"], base["ΔPPL ours"]) == (
        "5.00",
        "30.0",
        "",
        "",
    )
    assert table["big"]["params 10^6 paper"] == "213 [1]"
    assert "exact % ours" not in base


def test_changed_values_as_in_the_paper(tmp_path):
    put(tmp_path, "table3/base@paper", 1)
    table = cells(table_of(tmp_path))
    symbols = ["N", "d_model", "d_ff", "h", "d_k", "d_v", "P_drop", "eps_ls", "positions", "steps"]
    shown = {name: {s: row[s] for s in symbols if row[s]} for name, row in table.items()}
    assert list(shown["base"].values()) == [
        "6",
        "512",
        "2048",
        "8",
        "64",
        "64",
        "0.1",
        "0.1",
        "sinusoidal",
        "100,000",
    ]
    assert shown["A/h=1"] == {"h": "1", "d_k": "512", "d_v": "512"}
    assert shown["B/d_k=16"] == {"d_k": "16"}
    assert shown["E"] == {"positions": "learned"}
    assert shown["big"] == {"d_model": "1024", "d_ff": "4096", "h": "16", "P_drop": "0.3", "steps": "300,000"}


def test_a_table_says_which_row_was_trained_longer_and_for_how_many_steps(tmp_path):
    longer = "big: trained 3 times as long as the others, as in the paper (steps: {})."
    (tmp_path / "table3@smoke").mkdir()
    assert longer.format("not run") in table_of(tmp_path).notes
    put(tmp_path, "table3/base@smoke", 1)
    put(tmp_path, "table3/big@smoke", 1, train={"steps": 7, "epochs": 1.0, "target_tokens": 9, "flops": 1.0})
    put(tmp_path, "table3/big@smoke", 2, train={"steps": 4321, "epochs": 1.0, "target_tokens": 9, "flops": 1.0})
    notes = table_of(tmp_path).notes
    assert longer.format("7 to 4,321") in notes
    assert [note for note in notes if "as long as the others" in note] == [longer.format("7 to 4,321")]
    put(tmp_path, "regularised/base@smoke", 1)
    # Its base trains four times as long as the paper's, which is no longer than the others.
    notes = [note for note in table_of(tmp_path / "regularised@smoke").notes if "as long" in note]
    shorter = "trained 0.44 times as long as the others (steps: not run)."
    assert notes == [f"published: {shorter}", f"published/to-the-letter: {shorter}"]


def test_a_table_says_what_the_scale_made_of_the_paper(tmp_path):
    said = {}
    for scale in ("smoke", "tatoeba", "paper"):
        put(tmp_path / scale, f"table3/base@{scale}", 1)
        said[scale] = " ".join(table_of(tmp_path / scale).notes)
    factors = "d_model and d_ff are {} of the paper's, d_k and d_v {}, N {}, h the same"
    assert f"At scale smoke, {factors.format('1/8', '1/4', '1/2')}" in said["smoke"]
    assert f"At scale tatoeba, {factors.format('1/2', '1/2', '1/2')}" in said["tatoeba"]
    narrow = "Heads shrink less than the model because a small d_k"
    assert (narrow in said["smoke"], narrow in said["tatoeba"], narrow in said["paper"]) == (True, False, False)
    pre = "tensor2tensor made pre-norm its default in October 2017"
    assert (pre in said["smoke"], pre in said["tatoeba"], pre in said["paper"]) == (True, True, False)
    assert "At scale" not in said["paper"]


def test_what_is_not_translated_has_no_score_of_translations(tmp_path):
    put(tmp_path / "last", "table1/self-attention@recall", 1, exact=0.5)
    put(tmp_path / "whole", "table1/self-attention@smoke", 1, exact=0.5)
    last, whole = table_of(tmp_path / "last"), table_of(tmp_path / "whole")
    kinds = [kind for kind in KINDS if kind != "bleu"]
    assert [last.records[0][kind] for kind in kinds] == [None] * len(kinds)
    assert [whole.records[0][kind] for kind in kinds] == [31.0, 32.0, 33.0, 55.5]
    assert "exact %: of the test sentences, those whose last token is foretold to the letter." in last.notes
    assert "exact %: of the test sentences, those translated to the letter." in whole.notes


def test_a_table_says_which_parameters_are_scored_where_the_results_do(tmp_path):
    dev = {"split": "validation", "ppl": 2.0, "nll": 0.7, "tokens": 7}
    put(tmp_path, "decoding/beam=4/alpha=0.6/average=1@smoke", 1, dev=dev)
    assert not [note for note in table_of(tmp_path).notes if note.startswith("PPL and scores are of")]
    put(tmp_path, "decoding/beam=1/alpha=0.6/average=1@smoke", 1, dev=dev | {"parameters": "best"})
    said = "PPL and scores are of the checkpoint of the lowest dev loss of a run."
    assert said in table_of(tmp_path).notes
    put(tmp_path, "decoding/beam=4/alpha=0.6/average=5@smoke", 1, dev=dev | {"parameters": "average of 5"})
    assert (
        "PPL and scores are of the average of 5 checkpoints or the checkpoint of the lowest dev loss of a run."
        in table_of(tmp_path).notes
    )


def test_what_a_sweeps_base_changes_is_shown(tmp_path):
    put(tmp_path, "regularised/base@smoke", 1)
    rows = cells(table_of(tmp_path))
    assert list(rows) == ["base", "average=5", "published", "published/to-the-letter"]
    assert rows["base"]["P_drop"] == "0.3"


def test_seeds_give_mean_and_standard_deviation(tmp_path):
    ppls, bleus, exact = [5.0, 5.21, 5.6], [30.0, 31.1, 30.4], [0.5, 0.625, 0.61]
    others = [6.0, 6.3, 6.1]
    for seed in (1, 2, 3):
        i = seed - 1
        put(tmp_path, "table3/base@smoke", seed, ppl=ppls[i], bleu=bleus[i], exact=exact[i])
        put(tmp_path, "table3/C/N=2@smoke", seed, ppl=others[i])
    table = table_of(tmp_path)
    base, small = cells(table)["base"], cells(table)["C/N=2"]
    assert base["PPL ours"] == f"{statistics.mean(ppls):.2f} ± {statistics.stdev(ppls):.2f}"
    assert base["BLEU ours"] == f"{statistics.mean(bleus):.1f} ± {statistics.stdev(bleus):.2f}"
    percent = [100 * share for share in exact]
    assert base["exact % ours"] == f"{statistics.mean(percent):.1f} ± {statistics.stdev(percent):.1f}"
    assert base["runs"] == "3 done"
    assert small["ΔPPL ours"] == f"{statistics.mean(others) - statistics.mean(ppls):+.2f}"
    assert dict(table.caption)["seeds"] == "1, 2, 3"
    assert any("standard deviation over seeds" in note for note in table.notes)
    record = next(r for r in table.records if r["row"] == "base")
    assert record["ppl"] == pytest.approx(statistics.mean(ppls))
    assert record["ppl_sd"] == pytest.approx(statistics.stdev(ppls))
    assert record["bleu_compound"] == pytest.approx(statistics.mean(bleus) + 2)
    assert record["files"].split() == [f"base/seed{seed}/result.json" for seed in (1, 2, 3)]


def test_every_state_is_named(tmp_path):
    for seed in (1, 2, 3):
        put(tmp_path, "table3/base@smoke", seed)
        fail(tmp_path, "A/h=4", seed, "OutOfMemory: no room")
        (tmp_path / f"table3@smoke/A/h=16/seed{seed}").mkdir(parents=True)
    put(tmp_path, "table3/A/h=1@smoke", 1)
    fail(tmp_path, "A/h=1", 2, "OutOfMemory: no room")
    put(tmp_path, "table3/B/d_k=16@smoke", 3)
    (tmp_path / "table3@smoke/B/d_k=16/seed2").mkdir()
    fail(tmp_path, "B/d_k=32", 1, "ValueError: other\nlines")
    table = table_of(tmp_path)
    states = {name: row["runs"] for name, row in cells(table).items()}
    assert states["base"] == "3 done"
    assert states["A/h=1"] == "1 of 3 done, 1 failed [1], 1 missing"
    assert states["A/h=4"] == "failed [1]"
    assert states["A/h=16"] == "begun"
    assert states["A/h=32"] == "missing"
    assert states["B/d_k=16"] == "1 of 3 done, 1 begun, 1 missing"
    assert states["B/d_k=32"] == "0 of 3 done, 1 failed [2], 2 missing"
    assert "[1] OutOfMemory: no room" in table.notes
    assert "[2] ValueError: other lines" in table.notes
    assert cells(table)["A/h=4"]["PPL ours"] == ""
    assert cells(table)["A/h=4"]["PPL paper"] == "5.00"


def test_nothing_done_still_gives_a_table(tmp_path):
    (tmp_path / "table3@smoke").mkdir()
    table = table_of(tmp_path)
    assert {row["runs"] for row in cells(table).values()} == {"missing"}
    assert len(table.rows) == 20
    for render in (tables.to_markdown, tables.to_csv, tables.to_latex):
        assert "d_ff" in render(table).replace("\\", "")


def test_damaged_files_are_failures_with_a_reason(tmp_path):
    for variant, text in {"base": '{"format": 1', "E": '{"format": 1}', "big": "[]"}.items():
        path = put(tmp_path, f"table3/{variant}@smoke", 1)
        (path / "result.json").write_text(text)
    put(tmp_path, "table3/C/N=2@smoke", 1, dev={"split": "validation"})
    table = table_of(tmp_path)
    for name in ("base", "E", "big", "C/N=2"):
        assert re.fullmatch(r"failed \[\d\]", cells(table)[name]["runs"])
    assert any("result.json is damaged (not JSON of a run)" in note for note in table.notes)
    assert any("(no result of this version: dev.nll is missing)" in note for note in table.notes)


def test_the_first_split_of_the_configuration_counts(tmp_path):
    put(tmp_path, "table3/base@multi30k", 1, bleu=35.0)
    table = table_of(tmp_path)
    assert cells(table)["base"]["BLEU ours"] == "35.0"
    assert dict(table.caption)["BLEU on"] == "test_2016_flickr"


def test_a_changed_configuration_is_stale_with_its_fields(tmp_path):
    put(tmp_path, "table3/base@smoke", 1, overrides={"train.steps": 500, "data.dir": "elsewhere"})
    path = put(tmp_path, "table3/E@smoke", 1)
    result = json.loads((path / "result.json").read_text())
    del result["config"]["model"]["tying"]
    result["config"]["model"]["gone"] = 3
    (path / "result.json").write_text(json.dumps(result))
    put(tmp_path, "table3/C/N=2@smoke", 1)
    put(tmp_path, "table3/C/N=4@smoke", 1, overrides={"train.steps": 500})
    table = table_of(tmp_path)
    states = {name: row["runs"] for name, row in cells(table).items()}
    assert states["base"] == states["C/N=4"] == "done, stale [1]"
    assert states["E"] == "done, stale [2]"
    assert states["C/N=2"] == "done"
    assert (
        f"[1] Stale: train.steps was 500, is now {registry.get_config('table3/base@smoke').train.steps}." in table.notes
    )
    assert "[2] Stale: model.gone was 3, is now absent." in table.notes


def test_a_run_is_not_stale_for_where_it_was_computed(tmp_path):
    put(tmp_path, "table3/base@smoke", 1, overrides={"parallel.devices": 8})
    path = put(tmp_path, "table3/base@smoke", 2)
    result = json.loads((path / "result.json").read_text())
    del result["config"]["parallel"]  # as before there was a choice
    (path / "result.json").write_text(json.dumps(result))
    assert cells(table_of(tmp_path))["base"]["runs"] == "2 done"


def test_some_stale_seeds_are_counted(tmp_path):
    put(tmp_path, "table3/base@smoke", 1)
    put(tmp_path, "table3/base@smoke", 2, overrides={"optim.lr_factor": 2.5})
    assert cells(table_of(tmp_path))["base"]["runs"] == "2 done, 1 stale [1]"


def test_unregistered_variants_follow(tmp_path):
    for seed in (1, 2):
        put(tmp_path, "table3/base@smoke", seed)
    for heads in (2, 4):
        overrides = {"model.num_heads": heads, "model.dropout": 0.25}
        put(
            tmp_path,
            "table3/base@smoke",
            1,
            overrides=overrides,
            folder=f"base+dropout=0.25,num_heads={heads}",
        )
    late = {"model.num_heads": 2, "train.steps": 9}
    put(tmp_path, "table3/A/h=1@smoke", 1, overrides=late, folder="A/h=1+num_heads=2")
    put(tmp_path, "table3/base@smoke", 1, overrides={"model.d_k": 3}, folder="my own")
    fail(tmp_path, "my/failure", 1, "sad")
    table = table_of(tmp_path)
    extra = [
        "A/h=1+num_heads=2",
        "base+dropout=0.25,num_heads=2",
        "base+dropout=0.25,num_heads=4",
        "my own",
        "my/failure",
    ]
    assert [row[0] for row in table.rows[20:]] == extra
    rows = cells(table)
    assert (rows[extra[1]]["h"], rows[extra[1]]["P_drop"], rows[extra[1]]["PPL paper"]) == ("2", "0.25", "")
    assert [rows[name]["runs"] for name in extra[1:4]] == ["done"] * 3
    assert rows[extra[0]]["runs"].startswith("done, stale [")
    assert rows["my own"]["d_k"] == "3"
    assert rows["my/failure"]["runs"].startswith("failed [")
    assert rows["base"]["runs"] == "2 done"


def test_caption(tmp_path):
    put(tmp_path, "table3/base@multi30k.en-fr", 1)
    put(
        tmp_path,
        "table3/E@multi30k.en-fr",
        2,
        code="",
        vocab_size=registry.get_config("table3/base@multi30k").model.vocab_size - 1,
        data={"corpus": "c", "fingerprint": "g", "vocabulary_fingerprint": "v"},
    )
    table = table_of(tmp_path)
    config = registry.get_config("table3/base@multi30k")
    assert dict(table.caption) == {
        "Scale": "multi30k.en-fr",
        "corpus": "multi30k en-fr",
        "steps": f"{config.train.steps:,}",
        "epochs": "12.3",
        "target tokens trained on": "654,321",
        "vocabulary": f"{config.model.vocab_size - 1:,} to {config.model.vocab_size:,} subwords",
        "seeds": "1, 2",
        "PPL on": "validation",
        "BLEU on": "test_2016_flickr",
        "beam": "4",
        "alpha": "0.6",
        "checkpoints averaged": "none",
        "sacreBLEU": SIGNATURE,
        "device": "1 x Some CPU, 2 threads",
        "code": "abc123 (1 run), not recorded (1 run)",
    }
    notes = " ".join(table.notes)
    assert "per subword of our own vocabulary and so not comparable with the paper's" in notes
    assert "trained on different texts" in notes
    assert "different vocabularies" not in notes


def test_a_diverged_run_stays_legible(tmp_path):
    put(tmp_path, "table3/base@smoke", 1, ppl=float("nan"))
    put(tmp_path, "table3/E@smoke", 1, ppl=3.21e30)
    table = cells(table_of(tmp_path))
    assert (table["base"]["PPL ours"], table["E"]["PPL ours"]) == ("nan", "3.2e+30")


def test_what_diverged_is_called_so(tmp_path):
    chance = float(registry.get_config("table3/base@smoke").model.vocab_size)
    for name, seed, ppl in (
        ("base", 1, chance),
        ("base", 2, 2.0),
        ("E", 1, 1.01 * chance),
        ("E", 2, 2.0),
        ("C/N=2", 1, float("nan")),
        ("C/N=2", 2, float("inf")),
    ):
        put(tmp_path, f"table3/{name}@smoke", seed, ppl=ppl)
    table = table_of(tmp_path)
    runs = {name: row["runs"] for name, row in cells(table).items()}
    mark = re.fullmatch(r"2 done, 1 diverged( \[\d\])", runs["E"])[1]
    assert (runs["base"], runs["C/N=2"]) == ("2 done", f"2 done, diverged{mark}")
    assert [note for note in table.notes if note.startswith(f"{mark.strip()} Diverged: ")]


def test_the_table_of_scores_has_every_split_by_every_kind(tmp_path):
    put(tmp_path, "table3/base@smoke", 1, bleu=30.0)
    put(tmp_path, "table3/base@smoke", 2, bleu=31.0)
    path = put(tmp_path, "table3/E@smoke", 1, bleu=20.0) / "result.json"
    result = json.loads(path.read_text())
    del result["tests"]["a_split"]
    path.write_text(json.dumps(result))
    (found,) = reading.read([tmp_path])
    table = scores_table.build(found)
    shown = cells(table)
    assert list(shown) == [variant.name for variant in registry.variants("table3")]
    kinds = ("sacreBLEU", "tokenised", "compounds split", "lower case", "chrF")
    assert [c.title for c in table.columns[1:]] == [
        f"{split} {kind}" for split in ("a_split", "test") for kind in kinds
    ]
    sd = f"{statistics.stdev([30, 31]):.2f}"
    assert [shown["base"][f"test {kind}"] for kind in kinds] == [
        *(f"{mean} ± {sd}" for mean in ("30.5", "31.5", "32.5", "33.5")),
        "55.5 ± 0.00",
    ]
    assert shown["base"]["a_split sacreBLEU"] == "99.0 ± 0.00"
    assert (shown["E"]["test lower case"], shown["E"]["a_split lower case"]) == ("23.0", "")
    assert not any(shown["big"][title] for title in shown["big"] if title != "row")
    record = next(one for one in table.records if one["row"] == "base")
    assert (record["test_bleu_lower"], record["test_bleu_lower_sd"]) == (33.5, pytest.approx(statistics.stdev([0, 1])))


def test_the_table_of_costs_adds_up(tmp_path):
    for seed in (1, 2):
        put(tmp_path, "table3/base@smoke", seed)
    timing = {"train_s": 60.0, "decode_s": 30.0, "total_s": 90.0, "target_tokens_per_s": 654321.6}
    put(tmp_path, "table3/big@smoke", 1, timing=timing, device={"platform": "gpu", "kind": "X", "count": 4})
    (found,) = reading.read([tmp_path])
    table = costs_table.build(found)
    shown = cells(table)
    assert (shown["base"]["runs"], shown["base"]["training min"]) == ("2", "50.0 ± 0.0")
    assert shown["base"]["training PFLOP"] == "2.00 ± 0.00"
    assert (shown["big"]["target tokens/s"], shown["big"]["translating min"]) == ("654,322", "0.5")
    assert (shown["base"]["device hours"], shown["big"]["device hours"]) == ("2.00", "0.10")
    assert (shown["all"]["runs"], shown["all"]["device hours"]) == ("3", "2.10")
    assert (shown["E"]["runs"], shown["E"]["device hours"]) == ("", "")
    assert sum(record["device hours"] for record in table.records) == pytest.approx(2.1)
    assert [pair[0] for pair in table.caption] == ["Scale", "steps", "seeds", "device", "code"]


def test_what_takes_the_parameters_of_a_training_cost_none(tmp_path):
    put(tmp_path, "regularised/base@smoke", 1)
    put(tmp_path, "regularised/average=5@smoke", 1, trained_in="../../base/seed1")
    (found,) = reading.read([tmp_path])
    table = costs_table.build(found)
    shown = cells(table)
    for column in ("epochs", "target tokens 10^6", "training PFLOP", "target tokens/s", "training min"):
        assert shown["base"][column]
        assert shown["average=5"][column] == ""
    assert shown["average=5"]["translating min"] == "10.0"
    assert "Blank: a row that takes the parameters of another's training." in table.notes


def test_the_table_of_costs_says_how_a_row_is_made_again(tmp_path):
    put(tmp_path, "table3/base@smoke", 1)
    put(tmp_path, "table3/base@smoke", 2, device={"platform": "cpu", "kind": "Some CPU", "count": 1, "threads": 1})
    put(tmp_path, "table3/E@smoke", 1, device={"platform": "gpu", "kind": "X", "count": 1, "threads": 8})
    put(tmp_path, "table3/big@smoke", 1, device={"platform": "cpu", "kind": "Some CPU", "count": 1})
    (found,) = reading.read([tmp_path])
    table = costs_table.build(found)
    shown = cells(table)
    assert [shown[row]["threads"] for row in ("base", "E", "big", "A/h=1")] == ["1, 2", "", "", ""]
    (again,) = [note for note in table.notes if note.startswith("A row again")]
    arguments = again[again.index("table3@smoke") : again.index(". On")].split()
    values = {"ROW": "base", "SEEDS": "2", "DIR": str(tmp_path / "new"), "THREADS": "2"}
    for name, value in values.items():
        arguments = [argument.replace(name, value) for argument in arguments]
    assert local.main([*arguments, "--dry_run"]) == 0


def test_the_table_of_costs_says_of_what_a_cpu_split_into_devices_is_made_again(tmp_path):
    cpu = {"platform": "cpu", "kind": "Some CPU", "threads": 2}
    put(tmp_path, "table3/base@smoke", 1, device=cpu | {"count": 1})
    (found,) = reading.read([tmp_path])
    assert not any("split" in note or "parallel.devices" in note for note in costs_table.build(found).notes)
    put(tmp_path, "table3/big@smoke", 1, device=cpu | {"count": 2})
    put(tmp_path, "table3/E@smoke", 1, device={"platform": "gpu", "kind": "X", "count": 8, "threads": None})
    (found,) = reading.read([tmp_path])
    table = costs_table.build(found)
    assert "one device, whatever its threads, or as many as it was split into." in table.notes[0]
    (again,) = [note for note in table.notes if note.startswith("A row again")]
    assert " Of big also --set parallel.devices=2, with JAX_NUM_CPU_DEVICES=2 in the environment." in again
    shown = cells(table)
    assert float(shown["big"]["device hours"]) == pytest.approx(2 * float(shown["base"]["device hours"]), abs=0.01)
