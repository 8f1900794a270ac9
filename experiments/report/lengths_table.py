"""Table of translations by length of sentence, in bands that share the test sentences, and beyond training's."""

from collections.abc import Iterable
from typing import NamedTuple

from experiments.report.captions import caption, seeds_note, texts_notes
from experiments.report.metrics import Measure, bleu_of, by_length, exact_of, says_lengths
from experiments.report.results import Results
from experiments.report.tables import Column, Table

_WITHIN, _BEYOND = 3, 2  # bands
_SCORES = {"BLEU": (bleu_of, ".1f", ".2f"), "exact %": (exact_of, ".1f", ".1f")}
_HOW = ("Scale", "steps", "seeds", "BLEU on", "beam", "alpha", "checkpoints averaged", "code")


class Band(NamedTuple):
    """Band of lengths from `least` to `most`, in subwords of source or reference, whichever has more."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least}-{self.most}" if self.least < self.most else str(self.least)

    def covers(self, length: int) -> bool:
        """Returns whether a length is of this band."""
        return self.least <= length <= self.most


def bands(lengths: Iterable[int], longest: int) -> list[Band]:
    """Cuts the lengths of test sentences into bands of about as many sentences each, in ascending order.

    Those up to `longest`, the most that was trained on, and those beyond it are cut apart. Sentences of one length are
    in one band, so that there may be fewer.
    """
    ordered, made = sorted(lengths), []
    for side, count in (
        ([length for length in ordered if length <= longest], _WITHIN),
        ([length for length in ordered if length > longest], _BEYOND),
    ):
        for most in sorted({side[-(-len(side) * part // count) - 1] for part in range(1, count + 1) if side}):
            made.append(Band(next(length for length in side if not made or length > made[-1].most), most))
    return made


def build(found: Results) -> Table:
    """Makes the table from the runs that say how long their test sentences are; without such, it has no rows.

    Bands are of the first run's sentences. Where a run has others of a length, as with other subwords, a band would
    hold other sentences: it is left out.
    """
    known = [result for result in found.done if result.translated and says_lengths(result)]
    lengths = known[0].scores.lengths if known else ()
    cut = bands(lengths, known[0].train.longest) if known else []
    some_exact = any(any(result.scores.matches) for result in known)
    measures = {
        (title, band): Measure(_of(band, score, lengths), form, sd_form)
        for title, (score, form, sd_form) in _SCORES.items()
        for band in cut
        if title == "BLEU" or some_exact
    }
    rows = found.shown if known else ()
    records = [
        {"name": found.name_of(row), "row": row.variant.name}
        | {f"{title} {band}": measure.mean(row) for (title, band), measure in measures.items()}
        | {f"{title} {band} sd": measure.sd(row) for (title, band), measure in measures.items()}
        for row in rows
    ]
    return Table(
        title=f"{found.name}: translations by length of sentence.",
        columns=(
            Column("row", text=True),
            *(Column(title, str(band), drop=1 + i) for i, (title, band) in enumerate(measures)),
        ),
        rows=tuple((row.label, *(one.cell(row) for one in measures.values())) for row in rows),
        groups=tuple(row.group for row in rows),
        caption=caption(found, _HOW),
        notes=(*_sizes(rows, lengths, cut), *seeds_note(found), *texts_notes(found.done, False)),
        records=tuple(records),
    )


def _of(band, score, lengths):
    read = by_length(lambda length, _: band.covers(length), score)
    return lambda result: read(result) if result.translated and result.scores.lengths == lengths else None


def _sizes(rows, lengths, cut):
    """Yields notes on the sentences of bands and of the training, and on the rows that are left out of bands."""
    longest: dict[int, list[str]] = {}
    apart = []
    for row in rows:
        told = [result for result in row.results if result.translated and says_lengths(result)]
        for most in dict.fromkeys(one.train.longest for one in told if one.scores.lengths == lengths):
            longest.setdefault(most, []).append(row.label)
        apart += [row.label] * any(one.scores.lengths != lengths for one in told)
    if not longest:
        return
    sizes = ", ".join(f"{sum(band.covers(length) for length in lengths)} of {band}" for band in cut)
    first, *others = longest
    more = "".join(f", in {', '.join(longest[most])} {most}" for most in others)
    yield (
        f"Lengths are in subwords, of source or reference, whichever has more. Sentences: {sizes}. Those trained on "
        f"have at most {first}{more}."
    )
    if apart:
        yield f"Left out of all bands, since their test sentences have other lengths: {', '.join(apart)}."
