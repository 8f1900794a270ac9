"""Pictures of a page: the chart of each, and the data that it draws."""

import collections
import math
from collections.abc import Mapping
from typing import NamedTuple

from experiments.page import charts, curves, grids, labels
from experiments.page.differences import Difference
from experiments.report import heads_table, tuned_table
from experiments.report.metrics import BLEU, NLL, Measure
from experiments.report.results import Results, loss_of

FORESTS = {"PPL": "difference in log-perplexity, nats", "BLEU": "difference in BLEU"}
COSTS = {
    "flops": ("training FLOPs", Measure(lambda r: r.train.flops, "", "")),
    "params": ("parameters", Measure(lambda r: r.params, "", "")),
    "hours": ("device hours", Measure(lambda r: r.device_hours, "", "")),
}
QUALITIES = {"log_ppl": ("dev log-perplexity", NLL), "bleu": ("BLEU", BLEU)}
HEADS = {
    "entropy": "entropy of the weights, nats",
    "distance": "distance to what is attended to, tokens",
    "variance": "variance of the logits",
    "loss_without": "dev loss without the head, nats",
}


class Picture(NamedTuple):
    """Picture: its chart, Vega-Lite, and the values that this draws."""

    chart: dict[str, object]
    values: list[dict[str, object]]


def of(found: Results, known: Mapping[str, Mapping[str, Difference]]) -> dict[str, Picture]:
    """Returns {name: picture} of what there is anything to show of, in the order of the page.

    Args:
      found: the results.
      known: the differences from base (`differences.of`).
    """
    made = [
        _forests(known),
        grids.pictures(found),
        _curves(found),
        _scatter(found),
        _sensitivity(found),
        _attention(found),
    ]
    return {name: Picture(*picture) for some in made for name, picture in some.items()}


def _forests(known):
    made = {}
    for head, of_rows in known.items():
        values = [
            {
                "row": row,
                "ours": one.ours,
                "paper": one.paper,
                "low": one.interval.low if one.interval else None,
                "high": one.interval.high if one.interval else None,
                "inside": one.inside_noise,
            }
            for row, one in of_rows.items()
            if one.ours is not None
        ]
        if values:
            made[head] = charts.forest(head, FORESTS[head], [one["row"] for one in values]), values
    return made


def _curves(found):
    made = {kind: curves.of(found, kind) for kind in curves.KINDS}
    drawn = {one["row"] for values in made.values() for one in values}
    with_any = [row.label for row in found.shown if row.label in drawn]
    return {f"curves_{kind}": (charts.curves(kind, with_any), values) for kind, values in made.items() if values}


def _scatter(found):
    values = []
    for row in found.shown:
        of_row = {name: _finite(measure.mean(row)) for name, (_, measure) in (COSTS | QUALITIES).items()}
        if any(of_row[name] is not None for name in QUALITIES):
            values.append({"row": row.label, "group": row.group, **of_row})
    if not values:
        return {}
    qualities = [name for name in QUALITIES if any(one[name] is not None for one in values)]
    for cost in COSTS:
        for quality in qualities:
            known = [one for one in values if one[cost] and one[cost] > 0 and one[quality] is not None]
            named = labels.chosen([labels.Point(one["row"], math.log(one[cost]), one[quality]) for one in known])
            for one in values:
                one[f"{cost} {quality}"] = int(one["row"] in named)
    groups = list(dict.fromkeys(one["group"] for one in values))
    return {"rows": (charts.scatter(list(COSTS), qualities, groups), values)}


def _finite(value):
    return value if value is not None and math.isfinite(value) else None


def _sensitivity(found):
    """Returns a chart of each field that rows were tuned in by itself, and whose values are numbers."""
    by_field = collections.defaultdict(list)
    for one in tuned_table.read(found):
        if len(one.asked.grid) > 1 or not found.means(one.asked.row):
            continue
        for run, (name, point) in zip(one.points, one.asked.points.items(), strict=True):
            ((field, value),) = point.items()
            loss = loss_of(run)
            if type(value) in (int, float) and loss is not None and math.isfinite(loss):
                told = {"row": one.asked.row, "value": value, "loss": loss, "chosen": name == one.choice.point}
                by_field[f"sensitivity {field}"].append(told)
    return {
        name: (charts.sensitivity(name, list(dict.fromkeys(v["row"] for v in values)), _spread(values)), values)
        for name, values in by_field.items()
    }


def _spread(values):
    """Whether values are to be read as ratios, as those of a rate are."""
    return min(one["value"] for one in values) > 0


def _attention(found):
    values = []
    for row in found.shown:
        places = collections.defaultdict(list)
        for head in heads_table.of_row(row):
            places[f"{head['stack']} {head['kind']} {head['layer']}"].append(head)
        for where, heads in places.items():
            measured = {name: curves.rounded(_finite(head[name]) for head in heads) for name in HEADS}
            values.append({"row": row.label, "where": where, "head": [head["head"] for head in heads], **measured})
    return {"attention": (charts.attention(HEADS, values[0]["row"]), values)} if values else {}
