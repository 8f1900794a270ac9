"""Symbols of fields, the paper's where it has them, and the form of their values."""

from collections.abc import Iterable, Mapping

from experiments.points import short

SYMBOLS = {
    "model.num_layers": "N",
    "model.d_model": "d_model",
    "model.d_ff": "d_ff",
    "model.num_heads": "h",
    "model.d_k": "d_k",
    "model.d_v": "d_v",
    "model.dropout": "P_drop",
    "loss.label_smoothing": "eps_ls",
    "loss.name": "loss",
    "model.positions": "positions",
    "train.steps": "steps",
    "decode.beam": "beam",
    "decode.alpha": "alpha",
    "decode.average_last": "averaged",
}


def symbol(field: str) -> str:
    """Returns the paper's symbol of a dotted field, or its name without its group."""
    return SYMBOLS.get(field) or short(field)


def in_order(fields: Iterable[str]) -> list[str]:
    """Sorts fields as Table 3 orders its columns, then by name."""
    order = list(SYMBOLS)
    return sorted(fields, key=lambda f: (order.index(f) if f in SYMBOLS else len(order), f))


def show(value: object) -> str:
    """Returns a value as tables print it: 1024, 300,000, 0.1, true, learned."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)


def changes(diff: Mapping[str, object]) -> str:
    """Returns a diff on one line, e.g. "h=1 d_k=512 d_v=512"."""
    return " ".join(f"{symbol(f)}={show(diff[f])}" for f in in_order(diff))
