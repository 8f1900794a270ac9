"""Pictures of tables: the forms that they are written in, the same bytes for the same results."""

import io

FORMS = ("svg", "png")
# Of matplotlib: text stays text in SVG, and a row called "$a$" is written so rather than as a formula.
STYLE = {"svg.hashsalt": "tx", "svg.fonttype": "none", "font.size": 9, "text.parse_math": False}


def svg(figure, description: str | None = None) -> str:
    """Returns a matplotlib figure as SVG, with a description of what it shows in its metadata."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None, "Description": description})
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def png(figure, description: str | None = None) -> bytes:
    """Returns a matplotlib figure as PNG of 150 dots an inch, likewise."""
    data = io.BytesIO()
    told = {"Description": description} if description else {}
    figure.savefig(data, format="png", dpi=150, metadata={"Software": None, **told})
    return data.getvalue()


def rendered(figure, description: str | None = None) -> dict[str, str | bytes]:
    """Returns {form: contents of the file} of a figure."""
    return {"svg": svg(figure, description), "png": png(figure, description)}
