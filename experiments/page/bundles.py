"""Scripts and styles of others that a page carries: Vega with its embedding, and DataTables as itables bundles it."""

import importlib.metadata
import importlib.resources
import re

from tx.data import cache
from tx.files import read_text

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_EXPORTED = re.compile(r"export\s*\{([^{}]*)\}")


def vega() -> str:
    """Returns JavaScript that defines `vegaEmbed`, with Vega and Vega-Lite as Altair wants them.

    Bundling them takes 4 s, so that it is done once for a version and lies in the cache.
    """
    name = "vl-convert-python"
    key = cache.fingerprint(importlib.metadata.version(name), _SNIPPET)

    def build(folder):
        import vl_convert  # 84 MB, slow to load

        script = vl_convert.javascript_bundle(_SNIPPET)
        (folder / "vega.js").write_text(_inline(script), encoding="utf-8")

    return read_text(cache.entry("scripts", key, build) / "vega.js")


def tables() -> str:
    """Returns JavaScript, to be a module, that defines `dataTables.ITable`.

    The bundle exports its names; a module inside a page cannot be imported, so that they go to `window` instead.
    """
    exported = list(_EXPORTED.finditer(script := _of_itables("dt_bundle.js")))
    if not exported:
        raise ValueError("the bundle of itables exports nothing: this version is not known here")
    names = (pair.split(" as ") for pair in exported[-1][1].split(","))
    members = ",".join(f"{pair[-1].strip()}:{pair[0].strip()}" for pair in names if pair[-1].strip() != "default")
    start, end = exported[-1].span()
    return _inline(f"{script[:start]}window.dataTables={{{members}}};{script[end:]}")


def tables_style() -> str:
    """Returns the style sheet of those tables."""
    return _of_itables("dt_bundle.css")


def _of_itables(name):
    return (importlib.resources.files("itables") / "html" / name).read_text(encoding="utf-8")


def _inline(script):
    """Returns a script that nothing in it ends early where it lies inside a page."""
    return re.sub(r"</(?=script)", r"<\\/", script, flags=re.IGNORECASE).replace("<!--", r"<\!--")
