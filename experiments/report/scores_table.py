"""Table of translation scores: every test split by every kind of score, for each row of a sweep."""

from experiments.report.captions import caption, seeds_note, texts_notes
from experiments.report.metrics import Measure
from experiments.report.results import KINDS, Results
from experiments.report.tables import Column, Table

_HOW = ("Scale", "steps", "seeds", "beam", "alpha", "checkpoints averaged", "sacreBLEU", "code")


def build(found: Results) -> Table:
    """Makes the table from whatever runs there are; rows without results stay, and are blank."""
    splits = list(dict.fromkeys(split for result in found.done for split in result.tests))
    measures = {(split, kind): _measure(split, kind) for split in splits for kind in KINDS}
    records = [
        {"name": found.name_of(row), "row": row.variant.name}
        | {f"{split}_{kind}": measure.mean(row) for (split, kind), measure in measures.items()}
        | {f"{split}_{kind}_sd": measure.sd(row) for (split, kind), measure in measures.items()}
        for row in found.shown
    ]
    return Table(
        title=f"{found.name}: scores of the translations.",
        columns=(
            Column("row", text=True),
            *(Column(split, KINDS[kind], drop=splits.index(split)) for split, kind in measures),
        ),
        rows=tuple((row.label, *(one.cell(row) for one in measures.values())) for row in found.shown),
        groups=tuple(row.group for row in found.shown),
        caption=caption(found, _HOW),
        notes=(
            "tokenised, compounds split and lower case: multi-bleu on Moses tokens; with hyphenated compounds split "
            "as for the paper; and in lower case.",
            *seeds_note(found),
            *texts_notes(found.done, per_subword=False),
        ),
        records=tuple(records),
    )


def _measure(split: str, kind: str) -> Measure:
    def of(result):
        return getattr(result.tests.get(split), kind, None) if result.translated else None

    return Measure(of, ".1f", ".2f")
