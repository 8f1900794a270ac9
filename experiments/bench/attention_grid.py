"""`python -m experiments.bench attention`: where cuDNN's attention has other values or gradients than plain JAX's."""

import itertools
from collections.abc import Sequence

from experiments.bench.harness.contestant import Contestant
from experiments.report.tables import Column, Table
from tx.errors import UserError

KIND = "attention"
LENGTHS, WIDTHS = (64, 128, 192, 256), (16, 32, 64)
SHORTEST = 4  # of shorter rows a quarter, which may be empty, is nothing, and a half may be one token
MAGNITUDES = (1.0, 8.0)  # of the logits; with the greater one, sums of exponentials are far from 1
TOLERANCE = 0.03  # of the greatest number: bfloat16 has 8 bits
BLOCKS = {"as they are": 1, "padded": 128}  # rows whose length is no multiple of 128


def measure_attention(
    *, lengths: Sequence[int] = LENGTHS, widths: Sequence[int] = WIDTHS, threads: int, platform: str
) -> dict:
    """Returns {"kind", "tolerance", "cells", "wrong"}: of the grid's cells, and how many are not right.

    A cell is a length, a width, with and without queries that may attend to nothing, causal or not, logits of a
    magnitude, rows as they are or padded. It has the greatest error of each array (`contestants.tx_attention`), and is
    "right" where all is finite and within the tolerance. On a CPU plain JAX takes the place of cuDNN's calls.

    Raises UserError for a length below SHORTEST.
    """
    if short := [length for length in lengths if length < SHORTEST]:
        raise UserError(f"--lengths must be at least {SHORTEST}; got {short[0]}")
    cells = []
    with Contestant("attention", "contestants.tx_attention:AttentionCells", {}, threads, platform) as one:
        choices = (lengths, widths, (False, True), (False, True), MAGNITUDES, BLOCKS)
        for length, width, empty, causal, magnitude, rows in itertools.product(*choices):
            if rows == "padded" and _is_whole(length):
                continue
            cell = {"length": length, "width": width, "empty": empty, "causal": causal, "magnitude": magnitude}
            found = one("cell", **cell, block=BLOCKS[rows])
            right = all(each["finite"] and each["error"] <= TOLERANCE for each in found.values())
            cells.append({**cell, "rows": rows, "right": right, "arrays": found})
    wrong = sum(not cell["right"] for cell in cells)
    return {"kind": KIND, "platform": platform, "tolerance": TOLERANCE, "cells": cells, "wrong": wrong}


def is_trained(cell: dict) -> bool:
    """Returns whether a cell has rows as training has them: of whole blocks, or padded to such."""
    return cell["rows"] == "padded" or _is_whole(cell["length"])


def _is_whole(length):
    return length % BLOCKS["padded"] == 0


def to_table(result: dict) -> Table:
    """Returns the grid, a row for a length and a width: the worst of its cells, and which arrays are not finite."""
    groups = {}
    for cell in result["cells"]:
        groups.setdefault((cell["length"], cell["width"], cell["rows"], cell["empty"]), []).append(cell)
    rows = []
    for (length, width, how, empty), cells in groups.items():
        arrays = [named for cell in cells for named in cell["arrays"].items()]
        errors = [array["error"] for _, array in arrays if array["finite"]]
        broken = sorted({name for name, array in arrays if not array["finite"]})
        wrong = sum(not cell["right"] for cell in cells)
        worst = f"{max(errors):.1e}" if errors else ""
        rows.append((str(length), str(width), how, "some" if empty else "none", worst, ", ".join(broken), str(wrong)))
    heads = ("length", "width", "rows", "empty rows", "greatest error", "not finite", "cells not right")
    columns = tuple(Column(head, text=head in ("rows", "empty rows", "not finite")) for head in heads)
    records = tuple(dict(zip(heads, row, strict=True)) for row in rows)
    title = f"Attention by cuDNN beside plain attention, on {result['platform']}"
    return Table(title, columns, tuple(rows), ("",) * len(rows), (), (), records)
