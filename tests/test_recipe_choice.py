"""That the recipe of a scale is the one that its trials chose, by base and big alone."""

import json
import math
import pathlib
import re

import pytest

from experiments import registry

RESULTS = pathlib.Path(registry.__file__).with_name("results")
TRIALS = RESULTS / "recipe@multi30k"
POINT = re.compile(r"(?P<row>[^+]+)\+norm=(?P<norm>pre|post),lr_factor=(?P<rate>[\d.]+)")


def lowest_dev_losses():
    """{(row, norm, rate): nats a token at the best checkpoint}, of what was trained and not translated by its log."""
    losses = {}
    for folder in TRIALS.iterdir():
        point = POINT.fullmatch(folder.name)
        if (result := folder / "seed1/result.json").exists():
            loss = json.loads(result.read_text())["dev_best"]["nll"]
        else:
            lines = map(json.loads, (folder / "seed1/metrics.jsonl").read_text().splitlines())
            loss = min(line["dev_nll"] for line in lines if "dev_nll" in line)
        losses[point["row"], point["norm"], float(point["rate"])] = loss
    return losses


@pytest.fixture(scope="module")
def losses():
    return lowest_dev_losses()


def test_the_rate_of_multi30k_is_the_best_of_base_and_big(losses):
    config = registry.get_config("table3/base@multi30k")
    rates = {rate for row, norm, rate in losses if row == "big" and norm == config.model.norm}
    mean = {rate: losses["base", "pre", rate] + losses["big", "pre", rate] for rate in rates}
    chosen = min(mean, key=mean.get)
    assert config.optim.lr_factor == chosen
    assert min(rates) < chosen < max(rates)


@pytest.mark.parametrize("row", ["base", "big", "N=8", "P_drop=0.2"])
def test_no_row_is_better_with_the_norm_after_the_sub_layer(losses, row):
    best = {
        norm: min(loss for (one, n, _), loss in losses.items() if (one, n) == (row, norm)) for norm in ("pre", "post")
    }
    assert registry.get_config("table3/base@multi30k").model.norm == "pre"
    assert best["pre"] < best["post"]


def test_the_page_shows_the_perplexities_of_big(losses):
    page = (RESULTS / "README.md").read_text()
    for norm in ("pre", "post"):
        [cells] = re.findall(rf"^\| norm={norm} \|(.*)\|$", page, re.MULTILINE)
        shown = [float(cell) for cell in cells.split("|") if cell.strip()]
        known = sorted((rate, loss) for (row, n, rate), loss in losses.items() if (row, n) == ("big", norm))
        assert shown == [round(math.exp(loss), 2) for _, loss in known]
