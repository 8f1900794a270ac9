"""Metrics that results hold (`tx.evaluation.metrics`): columns of tables, whether or not their files are at hand."""

import functools
from collections.abc import Iterable, Iterator

from experiments.report.metrics import Measure
from experiments.report.results import Results, Row
from tx import components
from tx.runs.result import Metric, RunResult


def known(results: Iterable[RunResult]) -> dict[str, Metric]:
    """Returns {name: what the first result says that has it} of metrics, in the order of probe.metrics."""
    found: dict[str, Metric] = {}
    for result in results:
        there, probe = result.metrics or {}, result.config.get("probe")
        asked = components.chosen("probe.metrics", str(probe.get("metrics"))) if isinstance(probe, dict) else []
        found |= {name: there[name] for name in [*asked, *there] if name in there and name not in found}
    return found


def measures(results: Iterable[RunResult]) -> dict[str, Measure]:
    """Returns {name: measure} of the metrics of results."""
    return {name: _measure(name, metric.digits) for name, metric in known(results).items()}


def of_sweep(found: Results) -> dict[str, Measure]:
    """Returns {name: measure} of the metrics of all rows of a table."""
    return found.once(_of_done)


def _of_done(found):
    return measures(found.done)


@functools.cache
def _measure(name, digits):
    def of(result):
        metric = (result.metrics or {}).get(name)
        return metric.values.get(result.split) if metric else None

    return Measure(of, f".{digits}f", f".{digits}f")


def column(name: str) -> str:
    """Returns what the column of a metric is called in CSV and data frames, where its fields are probe.NAME.FIELD."""
    return f"probe.{name}"


def notes(rows: Iterable[Row]) -> Iterator[str]:
    """Yields what each metric of some rows is, and where its code was not the same in all of their runs."""
    done = [(row.label, result) for row in rows for result in row.results if result.metrics]
    for name, metric in known(result for _, result in done).items():
        better = "" if metric.better == "neither" else f"; {metric.better} is better"
        yield f"{name}: {metric.meaning}{better}."
        labels: dict[str | None, list[str]] = {}
        for label, one in ((label, result.metrics.get(name)) for label, result in done):
            if one and label not in labels.setdefault(one.code, []):
                labels[one.code].append(label)
        if len(labels) > 1:
            said = "; ".join(f"{code or 'unknown'} in {', '.join(those)}" for code, those in labels.items())
            yield f"{name} was computed by different code, so that its numbers may not compare: {said}."
