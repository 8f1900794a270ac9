"""Budget of the points of a grid: how far they differ in parameters and training FLOPs."""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from experiments.report.symbols import symbol
from tx.model import flops

TOLERANCE = 0.005  # of the parameters or FLOPs: what differs by no more counts as equal
MOST = 3  # grids that a note names


def differences(grids: Mapping[str, Sequence[tuple[Mapping[str, object], ConfigDict]]]) -> str:
    """Returns a note on points that differ in parameters or FLOPs by more than TOLERANCE; "" where none do.

    Args:
      grids: {variant: (point, its configuration) pairs}; around one variant there may be several, of other fields.
    """
    told = []
    for variant, pairs in _by_fields(grids):
        params = _range([flops.parameter_count(config.model) for _, config in pairs], "parameters")
        cost = _range([flops.training_flops(config) for _, config in pairs], "training FLOPs")
        if found := ", ".join(filter(None, (params, cost))):
            fields = dict.fromkeys(field for point, _ in pairs for field in point)
            varied = [field for field in fields if len({point.get(field) for point, _ in pairs}) > 1]
            told.append(f"{variant} with {', '.join(map(symbol, varied))} varied, all else fixed: {found}")
    more = f"; and {len(told) - MOST} grids more" if len(told) > MOST else ""
    return f"Points differ in size: {'; '.join(told[:MOST])}{more}" if told else ""


def _by_fields(grids):
    """Returns (variant, pairs) of each grid: its points have the same fields, but for some that are not read there."""
    found = []
    for variant, pairs in grids.items():
        alike: dict[frozenset, list] = {}
        for point, config in sorted(pairs, key=lambda pair: -len(pair[0])):
            whole = next((fields for fields in alike if fields >= point.keys()), frozenset(point))
            alike.setdefault(whole, []).append((point, config))
        found += [(variant, together) for together in alike.values()]
    return found


def _range(numbers, what):
    low, high = min(numbers), max(numbers)
    return f"{_short(low)} to {_short(high)} {what}" if high - low > TOLERANCE * high else ""


def _short(number):
    """Returns a number in three digits: 254K, 1.25M, 3.1e+15."""
    for size, letter in ((1e9, ""), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.3g}{letter}" if letter else f"{number:.2e}"
    return f"{number:g}"
