"""Table of the rows' differences from base: how sure each is, by the seeds and by the sentences of the test set."""

from collections.abc import Iterable, Mapping

from experiments.claims import MARGINS
from experiments.report import bootstrap, noise, own_metrics, power
from experiments.report.captions import caption, texts_notes
from experiments.report.metrics import BLEU, NLL, number
from experiments.report.noise import LEVEL, SCORES, Interval
from experiments.report.results import Results
from experiments.report.tables import Column, Table

_HOW = ("Scale", "steps", "seeds", "PPL on", "BLEU on", "code")
_NAMES = {"PPL": "Δlog PPL", "BLEU": "ΔBLEU"}
NOTE = f"(Δ): inside the noise: its simultaneous {LEVEL:.0%} interval (Dunnett's test) holds 0."
APART = (
    "Where a run of a row or of base diverged, or none has a finite dev loss, the row is not compared; its differences "
    "are shown as they are."
)
UNKNOWN = "Where base has one seed nothing tells the noise of ΔPPL, which is shown as it is."
ONE_SPREAD = "The intervals take one spread for all: too narrow for a row that scatters more, too wide for others."
BLOCKS = (
    "All rows are of the same trained models: their differences are taken seed by seed (a randomised block design), so "
    "that what a seed adds to all of them is no noise."
)
NO_SAMPLE = (
    "of base's trained models, yet compared as if trained anew, as the other rows were: the interval is wider than it "
    "need be."
)
SINGLE = "A row of one seed is judged by the spread that the seeds of the others have, taken for its own."
ONE_SEED = (
    f"ΔBLEU of one seed: by a paired bootstrap over sentences ({LEVEL:.0%}), which leaves out how much seeds differ."
)


def intervals(found: Results) -> dict[str, dict[str, Interval]]:
    """Returns {"PPL", "BLEU": {row: interval of its difference from base}}, PPL's of log-perplexity in nats a subword.

    By Dunnett's test over the seeds; of BLEU, where base has one seed, by the paired bootstrap over sentences.
    """
    known = {head: noise.intervals(found, measure) for head, measure in SCORES.items()}
    if any(row.variant.name not in known["BLEU"] for row in _one_seeds(found)):
        resampled, sound = bootstrap.bleu_intervals(found), _sound(found.rows, BLEU)
        of_base = found.rows[0].variant.name in sound
        single = {n: one.interval for n, one in resampled.items() if of_base and n in sound and not one.over_seeds}
        known["BLEU"] = single | known["BLEU"]
    return known


def _pairing(base, done):
    """Returns a note where rows take the parameters of base's runs, which are no samples of their own."""
    same = [row for row in done if noise.of_same_trainings(base, row)]
    if not same or len(base.results) < 2:
        return ""
    if len(same) == len(done):
        return BLOCKS
    return f"{', '.join(power.shortened([row.label for row in same]))}: {NO_SAMPLE}"


def _one_seeds(found):
    return [row for row in found.rows if len(noise.comparable(row, BLEU)) == 1]


def _sound(rows, measure):
    """Returns the names of the rows that can be compared with others."""
    return {row.variant.name for row in rows if noise.comparable(row, measure)}


def notes(found: Results, known: dict[str, dict[str, Interval]]) -> tuple[str, ...]:
    """Returns what a difference in parentheses is, and where nothing is known of the noise, for a table that has them.

    Args:
      found: the results.
      known: the intervals.
    """
    base, *others = found.rows
    done = [row for row in others if row.results and noise.of_one_text(NLL, base, row)] if base.results else []
    by_seeds = {head: noise.intervals(found, measure) for head, measure in SCORES.items()}
    by_sentences = known["BLEU"].keys() - by_seeds["BLEU"].keys()
    sound, of_base = _sound(done, NLL), bool(_sound(found.rows[:1], NLL))
    apart = bool(done) and not (of_base and len(sound) == len(done))
    unknown = of_base and not sound <= known["PPL"].keys()
    single = any(len(row.results) == 1 and row.variant.name in by_seeds["PPL"] for row in done)
    return (
        *((NOTE,) if any(by_seeds.values()) else ()),
        *filter(None, [_pairing(base, done)]),
        *filter(None, [uneven(found)]),
        *((SINGLE,) if single else ()),
        *((ONE_SEED,) if by_sentences else ()),
        *((APART,) if apart else ()),
        *((UNKNOWN,) if unknown else ()),
    )


def uneven(found: Results, heads: Iterable[str] = SCORES) -> str:
    """Returns in which of some scores rows share no one spread, for a table that compares them with base; "" if none.

    Args:
      found: the results.
      heads: the scores whose differences it shows.
    """
    base, *others = found.rows
    return scattered({head: noise.compare_rows(base, others, SCORES[head]).uneven for head in heads})


def scattered(spreads: Mapping[str, tuple[float, float] | None], who: str = "Rows") -> str:
    """Returns the same of {"PPL" and so on: `noise.uneven`}, and whose spreads they are."""
    ranges = {_NAMES.get(head, head).lstrip("Δ"): ends for head, ends in spreads.items() if ends}
    told = "; ".join(f"{name}, by {least:.2g} to {most:.2g}" for name, (least, most) in ranges.items())
    return f"{who} scatter unevenly between seeds (Bartlett's test) in {told}. {ONE_SPREAD}" if told else ""


def build(found: Results) -> Table:
    """Makes the table of the rows that have an interval; it has none without."""
    known = intervals(found)
    resampled = bootstrap.bleu_intervals(found) if any(known.values()) else {}
    rows = [row for row in found.shown if any(row.variant.name in one for one in known.values())]
    records = [_record(row, found.rows[0], known, resampled) for row in rows]
    return Table(
        title=f"{found.name}: differences from {found.rows[0].variant.name}.",
        columns=(
            Column("row", text=True),
            *_columns("PPL", 1),
            *_columns("BLEU", 0),
            Column("ΔBLEU", f"bootstrap {LEVEL:.0%}", drop=2),
        ),
        rows=tuple(map(_cells, records)),
        groups=tuple(row.group for row in rows),
        caption=caption(found, _HOW),
        notes=(
            *notes(found, known),
            *texts_notes(found.done),
            "Tested over the seeds: the logarithm of perplexity, in nats a subword, and BLEU, of all rows together.",
            "bootstrap: over sentences, the same for both, and over each row's seeds, from the statistics of each "
            "sentence that results hold; of one row at a time, and over few seeds a little too narrow.",
            f"same within: below {1 - LEVEL:.2g} where the row equals base within {MARGINS['ppl']:.2g} nats or "
            f"{MARGINS['bleu']:g} BLEU: p of two one-sided tests ({_whose(rows, found.rows[0])}).",
            *filter(None, [power.sentence(found)]),
        ),
        records=tuple(records),
    )


def _whose(rows, base):
    """Returns whose t the tests for equality take."""
    tests = {noise.of_same_trainings(base, row): None for row in rows}
    return " or ".join({False: "Welch's t", True: "t of the differences seed by seed"}[one] for one in tests)


def _columns(head, rank):
    margin = MARGINS[head.lower()]
    return (
        Column(_NAMES[head]),
        Column(_NAMES[head], f"{LEVEL:.0%}", drop=rank),
        Column("same within", f"{margin:.2g}", drop=rank + 2),
    )


def _record(row, base, known, resampled):
    name = row.variant.name
    record = {"row": name}
    for head, measure in SCORES.items():
        interval = known[head].get(name)
        values = [noise.comparable(one, measure) for one in (base, row)] if interval else ((), ())
        paired = noise.paired(measure, base, row)
        record |= columns(head, interval)
        record[f"{head.lower()}_p_equivalent"] = noise.equivalence(*values, MARGINS[head.lower()], seed_by_seed=paired)
    drawn = resampled.get(name)
    return record | {
        "bleu_bootstrap_low": drawn.interval.low if drawn else None,
        "bleu_bootstrap_high": drawn.interval.high if drawn else None,
        "bleu_bootstrap_over_seeds": drawn.over_seeds if drawn else None,
    }


def columns(head: str, interval: Interval | None) -> dict[str, object]:
    """Returns the columns of CSV that a difference has: itself, the ends of its interval, whether that holds zero."""
    key = {"PPL": "log_ppl", "BLEU": "bleu"}.get(head) or own_metrics.column(head)
    return {
        f"{key}_difference": interval.difference if interval else None,
        f"{key}_low": interval.low if interval else None,
        f"{key}_high": interval.high if interval else None,
        f"{key}_inside_noise": not interval.sign if interval else None,
    }


def _cells(record):
    cells = [record["row"]]
    for key, measure in (("log_ppl", SCORES["PPL"]), ("bleu", BLEU)):
        interval = _interval(record, key)
        text = number(interval.difference, f"+z{measure.form}") if interval else ""
        cells += [noise.mark(text, interval), interval.text(measure.form) if interval else ""]
        cells.append(number(record[f"{key.removeprefix('log_')}_p_equivalent"], ".3f"))
    low, high = record["bleu_bootstrap_low"], record["bleu_bootstrap_high"]
    return (*cells, "" if low is None else Interval(0.0, low, high).text(BLEU.form))


def _interval(record, key):
    ends = [record[f"{key}_{name}"] for name in ("difference", "low", "high")]
    return None if None in ends else Interval(*ends)
