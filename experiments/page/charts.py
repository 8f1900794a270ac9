"""Charts of a page, as Vega-Lite: Altair makes them, and the page brings the data and sets their parameters.

Text and axes have the colour of the page's text, so that one chart is right in the light and in the dark, and on paper.
Expressions keep to what Vega's interpreter knows: a page allows no code that is made at run time.
"""

from collections.abc import Mapping, Sequence

import altair as alt

COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#ff9da6", "#9d755d", "#79706e")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2))  # a row's colour and dash repeat after as many rows as there are pairs
OURS, PAPER = "#4c78a8", "#f58518"
_ROW_HEIGHT = 17
_HEIGHT = 300
_AXIS = alt.Axis(format=".3~s", labelSeparation=4)


def style(row: int) -> tuple[str, tuple[int, ...]]:
    """Returns colour and dash of the line of a row, by its place."""
    dash = row + row // len(COLOURS)  # neighbours differ in it too: printed in grey, colours hardly do
    return COLOURS[row % len(COLOURS)], DASHES[dash % len(DASHES)]


def forest(head: str, title: str, rows: Sequence[str]) -> dict[str, object]:
    """Returns the chart of our differences, with intervals, and the paper's, a row a line.

    Its data, called as `head`, are {"row", "ours", "low", "high", "paper", "inside"}. Ours is a cross where nothing
    tells its noise.
    """
    base = alt.Chart(alt.NamedData(head))
    names = alt.Y("row:N", sort=list(rows), title=None, axis=alt.Axis(labelLimit=170, grid=True, ticks=False))
    tips = [alt.Tooltip("row:N")] + [
        alt.Tooltip(f"{field}:Q", format="+.3f", title=label)
        for field, label in (("ours", "ours"), ("low", "from"), ("high", "to"), ("paper", "paper"))
    ]
    zero = alt.Chart(alt.InlineData([{}])).mark_rule(strokeDash=[3, 3], color="currentColor").encode(x=alt.datum(0))
    bars = base.mark_rule(strokeWidth=2, color=OURS).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=names)
    paper = base.mark_point(shape="diamond", size=60, filled=False, color=PAPER, strokeWidth=1.8).encode(
        x="paper:Q", y=names, tooltip=tips
    )
    ours = base.mark_point(size=45, filled=True, color=OURS, stroke=OURS, strokeWidth=1.5, opacity=1).encode(
        x="ours:Q",
        y=names,
        fillOpacity=alt.condition("datum.inside", alt.value(0), alt.value(1)),
        shape=alt.condition("datum.low === null", alt.value("cross"), alt.value("circle")),
        tooltip=tips,
    )
    return _finished(alt.layer(zero, bars, paper, ours), height=alt.Step(_ROW_HEIGHT))


def curves(kind: str, rows: Sequence[str]) -> dict[str, object]:
    """Returns the chart of learning curves of one of `curves.KINDS`; its data, "curves_KIND", are those of `curves.of`.

    Parameters: "axis", one of `curves.AXES`; "shown", names of rows.
    """
    axis, shown = alt.param(name="axis", value="step"), alt.param(name="shown", value=list(rows))
    styles = [style(place) for place in range(len(rows))]
    colours = alt.Scale(domain=list(rows), range=[colour for colour, _ in styles])
    dashes = alt.Scale(domain=list(rows), range=[list(dash) for _, dash in styles])
    title = {"train": "training loss", "dev": "dev loss"}[kind]
    scale = {"scale": alt.Scale(type="log", nice=False), "title": f"{title}, nats a target subword"}
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=None, axis=_AXIS),
        y=alt.Y("mean:Q", **scale),
        color=alt.Color("row:N", scale=colours, legend=None),
    )
    lines = base.mark_line(strokeWidth=1.6).encode(strokeDash=alt.StrokeDash("row:N", scale=dashes, legend=None))
    tips = [alt.Tooltip("row:N"), alt.Tooltip("step:Q", format=",")]
    tips += [alt.Tooltip(f"{field}:Q", format=".4f") for field in ("mean", "low", "high")]
    hovered = alt.selection_point(name="hovered", on="pointerover", empty=False)
    points = base.mark_point(size=50, filled=True).encode(
        tooltip=[*tips, alt.Tooltip("seeds:Q")], opacity=alt.condition(hovered, alt.value(1), alt.value(0))
    )
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", **scale), y2="high:Q")
    chart = alt.layer(band, lines, points.add_params(hovered), data=alt.NamedData(f"curves_{kind}"))
    chart = (
        chart.transform_filter("indexof(shown, datum.row) >= 0")
        .transform_flatten(["step", "mean", "low", "high"])
        .transform_calculate(rate="axis == 'step' ? 1 : datum[axis]")
        .transform_filter("isValid(datum.rate)")
        .transform_calculate(x="datum.step * datum.rate")
    )
    return _finished(chart.add_params(axis, shown), height=_HEIGHT)


def scatter(costs: Sequence[str], qualities: Sequence[str], groups: Sequence[str]) -> dict[str, object]:
    """Returns the chart of quality against cost; its data, called "rows", have {"row", "group"} and every field named.

    Points are named whose "COST QUALITY" is true. Parameters: "cost" and "quality", fields of `costs` and `qualities`.
    """
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=None, scale=alt.Scale(type="log", nice=False, padding=20), axis=_AXIS),
        y=alt.Y("y:Q", title=None, scale=alt.Scale(zero=False, padding=12)),
    )
    fields = [alt.Tooltip(f"{one}:Q", format=".4~g") for one in (*costs, *qualities)]
    points = base.mark_point(size=70, filled=True, opacity=0.9, color=OURS).encode(tooltip=["row:N", *fields])
    if 1 < len(groups) <= len(COLOURS):  # else a legend says nothing, or no two can be told apart
        colours = alt.Scale(domain=list(groups), range=list(COLOURS[: len(groups)]))
        legend = alt.Legend(title=None, orient="bottom")
        points = points.encode(
            color=alt.Color("group:N", scale=colours, legend=legend),
            shape=alt.Shape("group:N", scale=alt.Scale(domain=list(groups)), legend=legend),
        )
    names = base.mark_text(align="left", dx=7, fontSize=10, color="currentColor").encode(text="row:N")
    named = names.transform_filter("width > 500 && datum[cost + ' ' + quality]")  # on a phone they would overlap
    chart = alt.layer(points, named, data=alt.NamedData("rows"))
    chart = chart.transform_calculate(x="datum[cost]", y="datum[quality]")
    chart = chart.transform_filter("isValid(datum.x) && isValid(datum.y) && datum.x > 0")
    parameters = [alt.param(name="cost", value=costs[0]), alt.param(name="quality", value=qualities[0])]
    return _finished(chart.add_params(*parameters), height=_HEIGHT)


def sensitivity(name: str, rows: Sequence[str], is_log: bool) -> dict[str, object]:
    """Returns the chart of dev loss over the values of a field that rows were tuned in.

    Its data, called `name`, are {"row", "value", "loss", "chosen"}.
    """
    legend = alt.Legend(title=None, symbolLimit=len(rows), columns=4, orient="bottom")
    colours = alt.Scale(domain=list(rows), range=[style(place)[0] for place in range(len(rows))])
    base = alt.Chart(alt.NamedData(name)).encode(
        x=alt.X("value:Q", title=None, scale=alt.Scale(type="log" if is_log else "linear", zero=False)),
        y=alt.Y("loss:Q", title="dev loss, nats a target subword", scale=alt.Scale(zero=False)),
        color=alt.Color("row:N", scale=colours, legend=legend),
        tooltip=["row:N", "value:Q", alt.Tooltip("loss:Q", format=".4f"), "chosen:N"],
    )
    size = alt.condition("datum.chosen", alt.value(150), alt.value(35))
    points = base.mark_point(filled=True, opacity=1).encode(size=size)
    return _finished(alt.layer(base.mark_line(), points), height=_HEIGHT)


def attention(measures: Mapping[str, str], row: str) -> dict[str, object]:
    """Returns the heat map of a measure of every head; its data, called "attention", are {"row", "where", measures...}.

    Each measure is a list, by head. Parameters: "row", "measure".
    """
    base = (
        alt.Chart(alt.NamedData("attention"))
        .transform_filter("datum.row == row")
        .transform_flatten(["head", *measures])
        .transform_calculate(value="datum[measure]")
        .encode(
            x=alt.X("head:O", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("where:N", title=None, sort=None, axis=alt.Axis(labelLimit=170)),
            tooltip=["where:N", "head:O", *(alt.Tooltip(f"{one}:Q", format=".3f") for one in measures)],
        )
    )
    cells = base.mark_rect(stroke="currentColor", strokeOpacity=0.25).encode(
        color=alt.Color("value:Q", title=None, scale=alt.Scale(scheme="viridis"), legend=alt.Legend(format=".2~f"))
    )
    parameters = [alt.param(name="row", value=row), alt.param(name="measure", value=next(iter(measures)))]
    return _finished(cells.add_params(*parameters), height=alt.Step(24))


def grid_curve(name: str, score: str, field: str, numbers: Sequence[float], is_log: bool) -> dict[str, object]:
    """Returns the chart of a score along one axis of a grid: means, a band, the best ringed, its rivals hollow.

    Args:
      name: of the data.
      score, field: titles.
      numbers: of the axis; none where its values are words, or of several fields.
      is_log: whether they are to be read as ratios.


    Its data, called `name`, are {"x", "at", "mean", "sd", "seeds", "low", "high", "row", "best", "close"} and the ends
    of the best's interval, "from" and "to".
    """
    scale = alt.Scale(type="log" if is_log else "linear", zero=False, nice=False, padding=15)
    along = alt.X("x:Q", title=field, scale=scale, axis=alt.Axis(format="~g", values=list(numbers)))
    if not numbers:
        along = alt.X("at:O", title=field, sort=None, axis=alt.Axis(labelAngle=0))
    tips = [alt.Tooltip("row:N"), *(alt.Tooltip(f"{one}:Q", format=".4~g") for one in ("mean", "sd", "seeds"))]
    tips += [alt.Tooltip("from:Q", format=".4~g"), alt.Tooltip("to:Q", format=".4~g")]
    base = alt.Chart(alt.NamedData(name)).encode(x=along)
    up = {"scale": alt.Scale(zero=False), "title": score}
    band = base.mark_area(opacity=0.18, color=OURS).encode(y=alt.Y("low:Q", **up), y2="high:Q")
    line = base.mark_line(color=OURS, strokeWidth=1.6).encode(y=alt.Y("mean:Q", **up))
    points = base.mark_point(size=60, filled=True, color=OURS, stroke=OURS, opacity=1).encode(
        y=alt.Y("mean:Q", **up), tooltip=tips, fillOpacity=alt.condition("datum.close", alt.value(0), alt.value(1))
    )
    best = base.transform_filter("datum.best")
    interval = best.mark_rule(strokeWidth=2, color=PAPER).encode(y=alt.Y("from:Q", **up), y2="to:Q")
    ring = best.mark_point(size=190, color=PAPER, strokeWidth=2).encode(y=alt.Y("mean:Q", **up), tooltip=tips)
    return _finished(alt.layer(band, line, interval, points, ring), height=_HEIGHT)


def grid_heat(
    name: str, fields: Sequence[str], orders: Sequence[Sequence[str]], is_less_better: bool
) -> dict[str, object]:
    """Returns the chart of a score over two axes of a grid: a cell a point, the best in a frame.

    Its data, called `name`, are {"down", "across", "value", "text", "mean", "sd", "best", "row", "seeds"}.

    Args:
      name: of the data.
      fields: titles of the axes, that down and that across.
      orders: the places on each.
      is_less_better: what is better is coloured like what is better of other scores.
    """
    axis = alt.Axis(labelAngle=0, grid=False, domain=False, ticks=False)
    down = alt.Y("down:O", title=fields[0], sort=list(orders[0]), axis=axis)
    across = alt.X("across:O", title=fields[1], sort=list(orders[1]), axis=axis)
    tips = [alt.Tooltip("row:N"), *(alt.Tooltip(f"{one}:Q", format=".4~g") for one in ("mean", "sd", "seeds"))]
    base = alt.Chart(alt.NamedData(name)).encode(x=across, y=down, tooltip=tips)
    scheme = alt.Scale(scheme="viridis", reverse=is_less_better)
    cells = base.mark_rect().encode(color=alt.Color("value:Q", scale=scheme, legend=None), opacity=alt.value(0.55))
    frame = base.transform_filter("datum.best").mark_rect(fillOpacity=0, stroke=PAPER, strokeWidth=3)
    text = base.mark_text(color="currentColor").encode(text="text:N")
    return _finished(alt.layer(cells, frame, text), height=alt.Step(30))


def _finished(chart, height) -> dict[str, object]:
    chart = chart.properties(width="container", height=height).configure(
        background="transparent", font="system-ui, sans-serif"
    )
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": "normal"}
    lines = {"domainColor": "currentColor", "tickColor": "currentColor", "gridColor": "currentColor"}
    chart = chart.configure_axis(**text, **lines, gridOpacity=0.13, domainOpacity=0.5, tickOpacity=0.5)
    return chart.configure_legend(**text).configure_view(stroke=None).to_dict()
