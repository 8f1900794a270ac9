"""Result files made up for tests of reports."""

import json
import math

from experiments import registry
from experiments.report import reading
from experiments.report.main_table import build

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


def result_of(config, ppl=5.0, bleu=30.0, exact=0.0):
    """What result.json says of a run of a configuration, nested dicts."""
    split = config["decode"]["splits"].split(",")[0]
    scores = {"sentences": 9, "bleu": bleu, "signature": SIGNATURE, "chrf": 55.5, "stats": []}
    scores |= {"bleu_tokenized": bleu + 1, "bleu_compound": bleu + 2, "bleu_lower": bleu + 3, "exact_match": exact}
    other = scores | {"bleu": 99.0}  # of another split, alphabetically first
    return {
        "format": 1,
        "name": config["name"],
        "seed": config["train"]["seed"],
        "config": config,
        "params": 1_234_567,
        "vocab_size": config["model"]["vocab_size"],
        "train": {"steps": config["train"]["steps"], "epochs": 12.34, "target_tokens": 654_321, "flops": 2e15},
        "dev": {"split": "validation", "ppl": ppl, "nll": math.log(ppl) if ppl > 0 else ppl, "tokens": 7},
        "tests": {"a_split": other, split: scores},
        "decode": config["decode"],
        "data": {"corpus": "c", "fingerprint": "f", "vocabulary_fingerprint": "v"},
        "device": {"platform": "cpu", "kind": "Some CPU", "count": 1, "threads": 2},
        "timing": {"train_s": 3000.0, "decode_s": 600.0, "total_s": 3600.0, "target_tokens_per_s": 218.1},
        "code": "abc123",
    }


def put(
    workdir,
    name,
    seed,
    ppl=5.0,
    bleu=30.0,
    exact=0.0,
    overrides=None,
    folder=None,
    **changes,
):
    """Writes a run's result.json, returns its folder; `folder` for a variant that is not registered."""
    config = registry.get_config(name, {"train.seed": seed, **(overrides or {})}).to_dict()
    run = registry.parse(name)
    path = workdir / f"{run.sweep.name}@{run.scale.label}" / (folder or run.variant.name) / f"seed{seed}"
    path.mkdir(parents=True)
    result = result_of(config, ppl, bleu, exact) | {"name": name}
    (path / "result.json").write_text(json.dumps(result | changes))
    return path


def fail(workdir, variant, seed, error, scale="smoke"):
    path = workdir / f"table3@{scale}" / variant / f"seed{seed}"
    path.mkdir(parents=True)
    (path / "error.json").write_text(json.dumps({"name": "", "seed": seed, "error": error, "traceback": ""}))


def table_of(workdir):
    (found,) = reading.read([workdir])
    return build(found)


def cells(table):
    """{row: {column title: cell}}."""
    return {row[0]: dict(zip([c.title for c in table.columns], row, strict=True)) for row in table.rows}
