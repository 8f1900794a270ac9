"""Reproduction of a table: what of it does and what does not, a line for each of the paper's groups of rows."""

from experiments.claims import direction
from experiments.report.metrics import BLEU, NLL
from experiments.report.noise import LEVEL, intervals
from experiments.report.results import Results

_GROUPS = {
    "A": "Heads (A)",
    "B": "d_k (B)",
    "C": "Size (C)",
    "D": "Dropout, smoothing (D)",
    "": "Positions (E), big",
}
_SCORES = (("perplexity", "ppl", NLL), ("BLEU", "bleu", BLEU))


def to_markdown(found: Results) -> str:
    """Returns a bullet for each group: how many rows differ as in the paper, and which do not, or not beyond the noise.

    A row counts where the paper tells it from base (`experiments/claims.py`), and its seeds give an interval.
    """
    known = {key: intervals(found, measure) for _, key, measure in _SCORES}
    lines = [f"- {name}: {text}." for group, name in _GROUPS.items() if (text := _text(found, group, known))]
    noise = (
        f"Noise: the simultaneous {LEVEL:.0%} interval of the difference from base, over the seeds (Dunnett's test), "
        "holds zero. Rows that the paper does not tell from base are not counted."
    )
    return "\n".join([*lines, "", noise]) + "\n" if lines else ""


def _text(found, group, known):
    base, parts = found.rows[0], []
    for name, key, _ in _SCORES:
        as_there, within, against = [], [], []
        for row in found.rows[1:]:
            sign = direction(row.variant.paper, base.variant.paper, key)
            if not sign or row.variant.name not in known[key] or _group(row) != group:
                continue
            ours = known[key][row.variant.name].sign
            (within if not ours else as_there if ours == sign else against).append(row.variant.name.rpartition("/")[2])
        told = len(as_there) + len(within) + len(against)
        if told:
            text = f"in {name} {len(as_there)} of {told} as in the paper"
            text += f", within the noise {', '.join(within)}" if within else ""
            text += f", the other way {', '.join(against)}" if against else ""
            parts.append(text)
    return "; ".join(parts)


def _group(row):
    return row.group if row.group in _GROUPS else ""
