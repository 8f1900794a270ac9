"""Page of one sweep as HTML: its contents put together, and the one template filled in."""

import base64
import collections
import functools
import hashlib
import importlib.resources
import json
from collections.abc import Sequence

import jinja2

from experiments.page import (
    bundles,
    cells,
    charts,
    claim_list,
    curves,
    differences,
    grids,
    pictures,
    run_list,
    sentences,
)
from experiments.report.noise import LEVEL
from experiments.report.results import Results
from tx.runs import state

_SHOWN_FIRST = 10  # rows whose curves are switched on where nobody has chosen


def html(found: Results, link: run_list.Link, is_live: bool = False) -> str:
    """Returns the page of a sweep: one document that asks for nothing else.

    Args:
      found: the results.
      link: gives the address of a file of a run, seen from the page.
      is_live: it is served, and looks every few seconds whether anything has changed.
    """
    known = differences.of(found)
    drawn = pictures.of(found, known)
    data = {name: one.values for name, one in drawn.items()}
    listed = run_list.of(found, link)
    labels = [row.label for row in found.shown]
    with_curves = [label for label in labels if any(one["row"] == label for one in _values(data, "curves_"))]
    page_data = {
        "charts": {name: one.chart for name, one in drawn.items()},
        "data": data,
        "shown": with_curves[:_SHOWN_FIRST],
    }
    scripts = [bundles.vega(), _file("page.js")]
    module = bundles.tables()
    return _template().render(
        found=found,
        shown_table=cells.of(found, known),
        claims=claim_list.of(found),
        pivots=grids.tables(found),
        grids={name: name.split(" ", 2)[2] for name in drawn if name.startswith(grids.PREFIX)},
        listed=listed,
        counts=_counts(listed),
        charts=list(drawn),
        fields={name: name.partition(" ")[2] for name in drawn if name.startswith("sensitivity ")},
        forests=[name for name in drawn if name in pictures.FORESTS],
        switches=[(label, *charts.style(place)) for place, label in enumerate(with_curves)],
        shown=page_data["shown"],
        choices=_choices(data),
        examples=sentences.of(found),
        bar=cells.BAR,
        wide=cells.WIDE,
        level=f"{LEVEL:.0%}",
        data=_json(page_data),
        scripts=scripts,
        module=module,
        styles=[bundles.tables_style(), _file("style.css")],
        policy=_policy([*scripts, module], is_live),
        is_live=is_live,
    )


@functools.cache
def _template():
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_file("template.html"))


def _file(name):
    return (importlib.resources.files("experiments.page") / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str], is_live: bool) -> str:
    """Returns the Content-Security-Policy: nothing from anywhere, and of scripts these alone, by their digests.

    What a name or a translation holds is no script then, even if it were to reach the page unescaped.
    """
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    parts = ["default-src 'none'", f"script-src {allowed}", "style-src 'unsafe-inline'", "img-src data: blob:"]
    parts += ["base-uri 'none'", "form-action 'none'", *(["connect-src 'self'"] if is_live else [])]
    return "; ".join(parts)


def _json(value) -> str:
    """Returns JSON that no text in it ends early where it lies inside a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _values(data, prefix):
    return [value for name, values in data.items() if name.startswith(prefix) for value in values]


def _counts(listed):
    """Returns {state: how many runs have it}, in the order of `tx.runs.state.NAMES`."""
    found = collections.Counter(run.state for row in listed for run in row.runs)
    return {name: found[name] for name in state.NAMES if found[name]}


def _choices(data):
    """Returns {parameter: {value: what it is called}} of the charts whose parameters the page lets one choose."""
    rows = data.get("rows", [])
    return {
        "axis": curves.AXES,
        "cost": {name: title for name, (title, _) in pictures.COSTS.items()},
        "quality": {
            n: title for n, (title, _) in pictures.QUALITIES.items() if any(one[n] is not None for one in rows)
        },
        "row": {name: name for name in dict.fromkeys(one["row"] for one in data.get("attention", []))},
        "measure": pictures.HEADS,
    }
