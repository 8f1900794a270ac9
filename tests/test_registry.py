"""Names, variants and scales: what a run's name resolves to."""

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tx.config
from experiments import claims, registry
from experiments.registry import PaperRow, Sweep, Variant
from experiments.scales import SCALES, Scale, parse_scale
from tx.errors import UserError
from tx.model import flops
from tx.training.optimizer import schedule

# Table 3 as printed: name, changed values, PPL, BLEU, parameters in millions.
PRINTED = """
base           -                                             4.92 25.8  65
A/h=1          num_heads=1 d_k=512 d_v=512                   5.29 24.9  -
A/h=4          num_heads=4 d_k=128 d_v=128                   5.00 25.5  -
A/h=16         num_heads=16 d_k=32 d_v=32                    4.91 25.8  -
A/h=32         num_heads=32 d_k=16 d_v=16                    5.01 25.4  -
B/d_k=16       d_k=16                                        5.16 25.1  58
B/d_k=32       d_k=32                                        5.01 25.4  60
C/N=2          num_layers=2                                  6.11 23.7  36
C/N=4          num_layers=4                                  5.19 25.3  50
C/N=8          num_layers=8                                  4.88 25.5  80
C/d_model=256  d_model=256 d_k=32 d_v=32                     5.75 24.5  28
C/d_model=1024 d_model=1024 d_k=128 d_v=128                  4.66 26.0  168
C/d_ff=1024    d_ff=1024                                     5.12 25.4  53
C/d_ff=4096    d_ff=4096                                     4.75 26.2  90
D/P_drop=0.0   dropout=0.0                                   5.77 24.6  -
D/P_drop=0.2   dropout=0.2                                   4.95 25.5  -
D/eps_ls=0.0   label_smoothing=0.0                           4.67 25.3  -
D/eps_ls=0.2   label_smoothing=0.2                           5.47 25.7  -
E              positions=learned                             4.92 25.7  -
big            d_model=1024 d_ff=4096 num_heads=16 dropout=0.3 steps=300000 4.33 26.4 213
"""
ROWS = [line.split() for line in PRINTED.strip().splitlines()]


def leaves(name):
    """{last part of the field: value} of a run's configuration; no two fields that rows change share one."""
    return {k.rpartition(".")[2]: v for k, v in tx.config.fields(registry.get_config(name)).items()}


def test_the_rows_are_those_of_the_paper():
    assert [v.name for v in registry.variants("table3")] == [row[0] for row in ROWS]
    base = leaves("table3/base@paper")
    for (name, *changes, ppl, bleu, params), variant in zip(ROWS, registry.variants("table3"), strict=True):
        expected = base | {"name": f"table3/{name}@paper"}
        for change in changes:
            if change != "-":
                field, value = change.split("=")
                expected[field] = type(base[field])(value)
        for every in ("eval_every", "checkpoint_every"):  # as often in a training of any length
            expected[every] = base[every] * expected["steps"] // base["steps"]
        assert leaves(f"table3/{name}@paper") == expected
        assert variant.paper == PaperRow(float(ppl), float(bleu), None if params == "-" else float(params))


def test_base_at_paper_is_the_papers_base():
    config = registry.get_config("table3/base@paper")
    assert tx.config.fields(config) == tx.config.fields(tx.config.get_config()) | {"name": "table3/base@paper"}
    assert config.is_locked
    assert config.model.is_locked
    with pytest.raises(AttributeError):
        config.model.num_head = 3


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("sweep", [sweep.name for sweep in registry.sweeps()])
def test_no_two_rows_coincide(sweep, scale):
    names = registry.select(f"{sweep}@{scale}")
    assert sweep != "table3" or len(names) == 20
    seen = {tuple(v for k, v in tx.config.fields(registry.get_config(n)).items() if k != "name") for n in names}
    assert len(seen) == len(names)


@pytest.mark.parametrize("scale", SCALES)
def test_rows_of_one_rate_are_noted_and_nothing_is_claimed_of_them(scale):
    """Of a schedule's rows that differ in nothing but their rates, those that have the same at every step."""
    rows = {variant.name: variant for variant in registry.variants("schedule")}
    configs = {name: registry.get_config(f"schedule/{name}@{scale}") for name in rows}
    steps = np.arange(0, configs["base"].train.steps, 37)
    rates = {name: np.array([schedule(config)(step) for step in steps]) for name, config in configs.items()}
    of_rate = ("name", "optim.lr_factor", "optim.schedule", "optim.scale_by_width")
    rest = {
        name: {field: value for field, value in tx.config.fields(config).items() if field not in of_rate}
        for name, config in configs.items()
    }
    same = [
        (one, other)
        for one, other in itertools.combinations(rows, 2)
        if rest[one] == rest[other] and np.allclose(rates[one], rates[other], rtol=1e-5)
    ]
    noted = {512: [("base", "no-width")], 128: [("factor=0.5", "no-width")]}
    assert same == noted.get(configs["base"].model.d_model, [])
    claimed = [claim for claim in claims.of_sweep("schedule", scale) if claim.row == "no-width"]
    assert bool(claimed) == (not same and "decode.task" not in SCALES[scale].fields)


@pytest.mark.parametrize("pair", ["en-fr", "fr-en", "de-en", "en-cs"])
def test_what_table_2_prints_of_a_pair_is_of_that_pair(pair):
    of_pair = [registry.parse(f"table2/{row}@paper.{pair}").variant for row in ("base", "big")]
    printed = [(one.paper.bleu if one.paper else None) for one in of_pair]
    assert printed == ([38.1, 41.8] if pair == "en-fr" else [None, None])
    assert all("the paper prints" not in one.note for one in of_pair)
    assert [v.paper.bleu for v in registry.variants("table2")] == [27.3, 28.4]


@pytest.mark.parametrize("scale", SCALES)
def test_one_recipe_for_all_rows(scale):
    configs = [registry.get_config(name) for name in registry.select(f"table3@{scale}")]
    recipes = {
        (c.optim.to_json(), c.data.to_json(), c.decode.to_json(), c.model.vocab_size, c.model.norm, c.train.select)
        for c in configs
    }
    assert len(recipes) == 1


@pytest.mark.parametrize("scale", SCALES)
def test_a_row_trains_as_long_as_the_paper_has_it(scale):
    """In proportion, and is evaluated and saved as many times; steps that are asked for are taken as they are."""
    trains = {name: registry.get_config(f"table3/{name}@{scale}").train for name, *_ in ROWS}
    big = trains.pop("big")
    assert big.steps == 3 * trains["base"].steps
    assert {each.steps for each in trains.values()} == {trains["base"].steps}
    for every in ("eval_every", "checkpoint_every"):
        assert {each.steps / each[every] for each in (big, *trains.values())} == {big.steps / big[every]}
    assert registry.get_config(f"table3/big@{scale}", {"train.steps": 50}).train.steps == 50
    base = registry.base_config(registry.sweep("table3"), parse_scale(scale))
    diff = registry.diff(registry.get_config(f"table3/big@{scale}"), base)
    assert diff["train.steps"] == big.steps
    assert "train.eval_every" not in diff


@pytest.mark.parametrize(
    ("diff", "recipe"),
    [
        ({"train.steps": 300}, (2, 1, 1)),  # 750 of 100,000 there
        ({"train.steps": 300, "train.checkpoint_every": 300}, (2, 1, 2)),
        ({"train.eval_every": 50, "train.checkpoint_every": "50"}, (750, 1, 1)),
        ({"train.steps": 300_000, "train.eval_every": 1}, (2250, 1, 450)),
    ],
)
def test_what_is_short_is_evaluated_and_saved_at_every_step(diff, recipe):
    sweep = Sweep("short", {"train.select": "last"}, (Variant("base"), Variant("row", diff)), "")
    train = registry.resolve(sweep, sweep.variants[1], SCALES["smoke"]).train
    assert (train.steps, train.eval_every, train.checkpoint_every) == recipe
    for wrong in (0, -50):
        sweep = Sweep("short", {}, (Variant("base"), Variant("row", {"train.eval_every": wrong})), "")
        with pytest.raises(UserError, match=r"train\.eval_every must be positive; got 0"):
            registry.resolve(sweep, sweep.variants[1], SCALES["smoke"])


@pytest.mark.parametrize("factor", [2, 2.0])
def test_a_factor_is_rescaled_as_a_fraction_however_it_is_written(factor):
    rescaled = SCALES["smoke"].rescale_recipe({"optim.lr_factor": factor, "optim.warmup_steps": 2001})
    assert rescaled["optim.lr_factor"] == pytest.approx(1.2)
    assert (rescaled["optim.warmup_steps"], type(rescaled["optim.warmup_steps"])) == (100, int)


def test_the_recipe_of_a_diff_is_read_as_every_other_field_is():
    strings = {"train.steps": "2e5", "optim.lr_factor": "2", "optim.warmup_steps": "8_000"}
    numbers = {"train.steps": 200_000, "optim.lr_factor": 2, "optim.warmup_steps": 8000}
    assert SCALES["smoke"].rescale_recipe(strings) == SCALES["smoke"].rescale_recipe(numbers)
    assert SCALES["smoke"].rescale_recipe({"train.steps": 1.5e5})["train.steps"] == 1125
    for field, wrong in (("train.steps", None), ("train.steps", "many"), ("optim.lr_factor", math.nan)):
        sweep = Sweep("mine", {}, (Variant("base"), Variant("x", {field: wrong})), "")
        with pytest.raises(UserError, match=rf"mine/x@smoke: {field} takes a .* number.*, got {wrong!r}"):
            registry.resolve(sweep, sweep.variants[1], SCALES["smoke"])


def test_the_papers_norm_and_last_step_are_the_papers_alone():
    for scale in SCALES:
        config = registry.get_config(f"table3/base@{scale}")
        small = scale != "paper"
        assert (config.model.norm, config.train.select) == (("pre", "best") if small else ("post", "last"))
        # A dev loss at four fifths of the training tells whether the last fifth still gained.
        assert not small or (4 * config.train.steps // 5) % config.train.eval_every == 0


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_multiplies_widths_and_depth_of_every_row_and_leaves_h(scale):
    dial = SCALES[scale]
    for name in registry.select(f"table3@{scale}"):
        small = registry.get_config(name).model
        full = registry.get_config(name.replace(f"@{scale}", "@paper")).model
        assert small.num_heads == full.num_heads
        assert small.num_layers == full.num_layers * dial.depth >= 1
        for field, factor in {"d_model": dial.width, "d_ff": dial.width, "d_k": dial.heads, "d_v": dial.heads}.items():
            assert small[field] == full[field] * factor >= 1
        assert small.dropout == full.dropout


def test_paper_sizes_of_the_small_scales():
    sizes = {"smoke": (64, 16), "multi30k": (128, 32), "tatoeba": (256, 32), "recall": (64, 16)}
    for scale, widths in sizes.items():
        model = registry.get_config(f"table3/base@{scale}").model
        assert (model.d_model, model.d_k) == widths
    assert registry.get_config("table3/A/h=32@smoke").model.d_k == 4
    depths = [registry.get_config(f"table3/{v}@smoke").model.num_layers for v in ("C/N=2", "C/N=4", "base", "C/N=8")]
    assert depths == [1, 2, 3, 4]


def test_sizes_must_stay_whole():
    sweep = Sweep("narrow", {}, (Variant("base"), Variant("d_k=2", {"model.d_k": 2})), "")
    with pytest.raises(UserError, match=r"narrow/d_k=2@smoke: model\.d_k=2 times 1/4 .* is 1/2, .* multiple of 4"):
        registry.resolve(sweep, sweep.variant("d_k=2"), parse_scale("smoke"))
    third = Scale("third", "", "numbers", depth=Fraction(1, 3))
    table3 = registry.sweep("table3")
    with pytest.raises(UserError, match=r"model\.num_layers=4 times 1/3 .* is 4/3"):
        registry.resolve(table3, table3.variant("C/N=4"), third)


def test_overrides_are_not_scaled_and_are_checked():
    config = registry.get_config("table3/A/h=1@smoke", {"model.d_model": 96, "train.steps": 7})
    assert (config.model.d_model, config.train.steps, config.model.num_heads) == (96, 7, 1)
    with pytest.raises(UserError, match=r"'model\.num_head'; the nearest is 'model\.num_heads'"):
        registry.get_config("table3/base@smoke", {"model.num_head": 2})
    with pytest.raises(UserError, match=r"table3/base@smoke: model\.num_heads must be positive; got 0"):
        registry.get_config("table3/base@smoke", {"model.num_heads": 0})


def test_names_are_read_and_written_back():
    for name in ("table3/base@paper", "table3/A/h=1@multi30k", "table3/C/d_ff=1024@multi30k.en-fr"):
        run = registry.parse(name)
        assert run.name == name == registry.get_config(name).name
    assert registry.parse("table3/base@multi30k.en-de").name == "table3/base@multi30k"


def test_the_pair_is_part_of_the_scale():
    pairs = {"multi30k": ("en", "de"), "multi30k.en-fr": ("en", "fr"), "smoke.de-en": ("de", "en")}
    for label, pair in pairs.items():
        data = registry.get_config(f"table3/base@{label}").data
        assert (data.source, data.target) == pair
    for label, corpus in {"paper": "de-en", "paper.en-fr": "fr-en", "paper.cs-en": "cs-en"}.items():
        assert registry.get_config(f"table3/base@{label}").data.corpus == f"wmt14_translate/{corpus}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tabl3/base@smoke", "unknown sweep 'tabl3'; the nearest is 'table3' (one of your own needs --import FILE.py)"),
        ("table3/A/h=3@smoke", "unknown variant of sweep table3 'A/h=3'; the nearest is 'A/h="),
        ("table3/bas@smoke", "the nearest is 'base'"),
        ("table3/base@smok", "unknown scale 'smok'; the nearest is 'smoke'"),
        ("table3/base", "'table3/base' is not SWEEP"),
        ("table3@smoke", "e.g. table3/base@smoke"),
        ("table3/base@", "is not SWEEP"),
        ("@smoke", "is not SWEEP"),
        ("table3/base@smoke.en-fr", "scale smoke has no pair 'en-fr'; the nearest is 'en-de'"),
        ("table3/base@multi30k.enfr", "'enfr' is no language pair"),
        ("table3/base@multi30k.en-en", "'en-en' is no language pair"),
    ],
)
def test_wrong_names_get_one_line_that_helps(name, message):
    with pytest.raises(UserError) as caught:
        registry.get_config(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


parts = st.sampled_from(["table3", "base", "A/h=1", "smoke", "multi30k", "en-de", "@", "/", ".", "*", "[", "\n"])


@settings(max_examples=200)
@given(st.lists(parts | st.text(st.characters(exclude_categories=[]), max_size=3), max_size=7).map("".join))
@example("table3@smoke\n")
@example("a\nb")
@example("a\u2028@")
def test_any_name_is_a_run_or_refused_in_one_line(name):
    for read in (registry.parse, registry.parse_sweep, registry.get_config, registry.select):
        try:
            found = read(name)
        except UserError as error:
            message, found = str(error), None
            assert len(message.splitlines()) == 1
        if found is not None and read is registry.get_config:
            assert registry.parse(found.name) == registry.parse(name)
        if found is not None and read is registry.select:
            assert all(registry.get_config(run).name == run for run in found)


def test_globs_select():
    heads = ["table3/A/h=1", "table3/A/h=4", "table3/A/h=16", "table3/A/h=32"]
    assert registry.select("table3/A/*@smoke") == [f"{name}@smoke" for name in heads]
    assert registry.select("table3/A/h=?@smoke") == ["table3/A/h=1@smoke", "table3/A/h=4@smoke"]
    assert registry.select("table3/E@multi30k.en-fr") == ["table3/E@multi30k.en-fr"]
    assert registry.select("table3@smoke") == [f"table3/{v.name}@smoke" for v in registry.variants("table3")]
    assert registry.select("*e3@smoke") == registry.select("table3/*@smoke") == registry.select("table3@smoke")
    assert registry.select("table3/[BE]*@*") == [
        f"table3/{v}@{scale}" for scale in SCALES for v in ("B/d_k=16", "B/d_k=32", "E")
    ]
    for pattern in ("table3/X*@smoke", "table3/A/*@q*", "table3/A@smoke"):
        with pytest.raises(UserError, match=r"the nearest is|no scale matches"):
            registry.select(pattern)


def test_registering(monkeypatch):
    monkeypatch.setattr(registry, "_SWEEPS", dict(registry._SWEEPS))
    mine = registry.register(
        Sweep("mine", {"model.norm": "none"}, (Variant("base"), Variant("x", {"model.d_k": 8})), "")
    )
    assert registry.sweeps()[-1] is mine
    config = registry.get_config("mine/x@smoke")
    assert (config.model.norm, config.model.d_k) == ("none", 2)
    assert registry.diff(config, registry.base_config(mine, parse_scale("smoke"))) == {"model.d_k": 2}
    for wrong in (
        Sweep("mine", {}, (Variant("base"),), ""),
        Sweep("none", {}, (), ""),
        Sweep("changed", {}, (Variant("base", {"model.d_k": 8}),), ""),
        Sweep("twice", {}, (Variant("base"), Variant("base")), ""),
        Sweep("at", {}, (Variant("base"), Variant("a@b")), ""),
        Sweep("sl/ash", {}, (Variant("base"),), ""),
        *(
            Sweep("leads", {}, (Variant("base"), Variant(name)), "")
            for name in ("", "/a", "a//b", "a/", ".", "..", "../x", "a/./b", "seed1", "A/seed12/x", "a\nb", "a\x1b")
        ),
        Sweep("be\all", {}, (Variant("base"),), ""),
    ):
        with pytest.raises(ValueError, match=r"sweep '"):
            registry.register(wrong)


@pytest.mark.parametrize("order", [0, 1])
def test_an_unknown_measure_is_refused(tmp_path, order):
    """Whether what knows the measures is imported before the sweep or after it."""
    lines = ["import experiments.report.metrics", "register(Sweep('mine', {}, (Variant('base'),), '', ('entrpy',)))"]
    (tmp_path / "mine.py").write_text("\n".join(["from experiments.registry import *", *lines[:: 1 - 2 * order]]))
    done = subprocess.run([sys.executable, tmp_path / "mine.py"], capture_output=True, text=True)
    message = "ValueError: sweep 'mine': no measure 'entrpy'; the nearest is 'entropy'"
    assert done.stderr.splitlines()[-1] == message


def test_the_configuration_file_takes_names_as_they_are(tmp_path):
    """Through ml_collections' own flag, which splits the file from the name at the first colon."""
    script = tmp_path / "show.py"
    script.write_text(
        "from absl import app\n"
        "from ml_collections import config_flags\n"
        "flag = config_flags.DEFINE_config_file('config')\n"
        "app.run(lambda _: print(flag.value.name, flag.value.model.num_heads, flag.value.train.steps))\n"
    )
    file = registry.__file__.replace("registry.py", "config.py")
    command = [
        sys.executable,
        script,
        f"--config={file}:table3/A/h=1@multi30k.en-fr",
        "--config.train.steps=5",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["table3/A/h=1@multi30k.en-fr", "1", "5"]


def test_table2_translates_newstest2014_from_averaged_checkpoints():
    """Table 2 and section 6.1: ten minutes between checkpoints, at the seconds a step of section 5.2."""
    printed = {"base@paper": 27.3, "big@paper": 28.4, "base@paper.en-fr": 38.1, "big@paper.en-fr": 41.8}
    dropout = {"base@paper": 0.1, "big@paper": 0.3, "base@paper.en-fr": 0.1, "big@paper.en-fr": 0.1}
    for name, bleu in printed.items():
        run, config = registry.parse(f"table2/{name}"), registry.get_config(f"table2/{name}")
        averaged, every = (20, 600 / 1.0) if "big" in name else (5, 600 / 0.4)
        assert run.variant.paper == PaperRow(bleu=bleu)
        assert (config.decode.splits, config.decode.average_last) == ("test", averaged)
        assert (config.train.checkpoint_every, config.train.keep_checkpoints) == (every, averaged)
        assert config.model.dropout == dropout[name]
        assert config.model.to_dict() | {"dropout": 0} == (
            registry.get_config(f"table3/{name.partition('@')[0]}@paper").model.to_dict() | {"dropout": 0}
        )
        assert config.data.corpus == f"wmt14_translate/{'fr' if 'fr' in name else 'de'}-en"
    sweep, scale = registry.parse_sweep("table2@multi30k.en-fr")
    assert [variant.paper.bleu for variant in sweep.variants] == [38.1, 41.8]
    splits = registry.resolve(sweep, sweep.variants[1], scale).decode.splits
    assert splits == registry.get_config("table3/base@multi30k").decode.splits  # the scale's own test sentences


def test_the_published_model_of_multi30k_is_theirs():
    """2.6 million parameters, and a rate of 0.005 at the end of 2,000 of 8,000 updates (Wu et al. 2021)."""
    config = registry.get_config("regularised/published@multi30k")
    fields = tx.config.fields(config)
    width, warmup = fields["model.d_model"], fields["optim.warmup_steps"]
    assert (warmup, fields["train.steps"], fields["data.batch_rows"] * fields["data.row_length"]) == (2000, 8000, 4096)
    assert fields["optim.lr_factor"] * (width * warmup) ** -0.5 == pytest.approx(0.005, rel=1e-3)
    assert [fields[f"model.{size}"] for size in ("d_ff", "num_layers", "num_heads", "dropout")] == [256, 4, 4, 0.3]
    assert fields["model.num_heads"] * fields["model.d_k"] == fields["model.num_heads"] * fields["model.d_v"] == width
    assert flops.parameter_count(config.model) == pytest.approx(2.6e6, rel=0.01)
