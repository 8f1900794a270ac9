"""Captions and notes of tables: how the numbers were obtained, and what they may not be compared with."""

from collections import Counter
from collections.abc import Container, Iterable, Sequence

from experiments.report import budget
from experiments.report.results import NOT_COMPARED, Results, Row
from experiments.report.symbols import show
from experiments.scales import PAPER
from tx.config import says_where
from tx.runs.result import RunResult


def caption(found: Results, only: Container[str] | None = None) -> tuple[tuple[str, str], ...]:
    """Returns (what, value) pairs, those named by `only` if given; where runs differ, every value or the range."""
    done = found.done
    if not done:
        return (("Runs", "none done"),)
    translated = [result for result in done if result.translated]
    decode = [result.decode for result in translated]
    pairs = [
        ("Scale", found.scale.label),
        (
            "corpus",
            _list(f"{c['corpus']} {c['source']}-{c['target']}" for c in (r.config["data"] for r in done)),
        ),
        ("steps", _range((r.train.steps for r in done), ",")),
        ("epochs", _range((r.train.epochs for r in done), ",.1f")),
        ("target tokens trained on", _range((r.train.target_tokens for r in done), ",")),
        ("vocabulary", f"{_range((r.vocab_size for r in done), ',')} subwords"),
        ("seeds", _list(run.seed for row in found.shown for run in row.runs if run.result)),
        ("PPL on", _list(r.dev.split for r in done)),
        ("BLEU on", _list(r.split for r in translated)),
        ("last word asked of", _list(r.split for r in done if not r.translated)),
        ("beam", _list(d.beam for d in decode)),
        ("alpha", _list(map(_alpha, decode))),
        (
            "checkpoints averaged",
            _list("none" if d.average_last == 1 else d.average_last for d in decode),
        ),
        ("sacreBLEU", _list(r.scores.signature for r in translated)),
        ("device", _counted(map(_device, done))),
        ("environment", _counted(map(_environment, done)) if any(r.environment for r in done) else ""),
        ("code", _counted(r.code or "not recorded" for r in done)),
    ]
    return tuple(pair for pair in pairs if pair[1] and (only is None or pair[0] in only))


def _alpha(decode):
    """Returns the exponent of the length penalty, and what it is an exponent of where that is not the paper's."""
    return f"{decode.alpha} (penalty len^alpha)" if decode.length_penalty == "length" else decode.alpha


def standing_notes(found: Results) -> tuple[str, ...]:
    """Returns the notes of any table: what its columns are, and what makes its rows incomparable."""
    notes = []
    if found.beside_paper:
        notes.append(
            "PPL is per subword of our own vocabulary and so not comparable with the paper's, which is per "
            "subword of its own. Our BLEU is sacreBLEU; the paper's is tokenised and splits compounds."
        )
    return (
        *notes,
        *_recipe_notes(found),
        *settings_notes(found.shown),
        *_size_note(found),
        *_longer_notes(found),
        *_scored_note(found),
        *_untrained_lengths_note(found),
        *texts_notes(found.done),
        *seeds_note(found),
    )


def _recipe_notes(found):
    """Returns notes on what the scale makes otherwise than the paper, and why."""
    scale = found.scale
    notes = []
    if scale.name != "paper":
        notes.append(
            f"At scale {scale.label}, d_model and d_ff are {scale.width} of the paper's, d_k and d_v {scale.heads}, N "
            f"{scale.depth}, h the same: rows are named by the paper's numbers, columns show what was run."
        )
        if scale.heads > scale.width:
            notes[0] += (
                " Heads shrink less than the model because a small d_k is what the paper's own row B shows to be bad."
            )
    norms = {result.config["model"].get("norm") for result in found.done}
    if {**scale.fields, **found.sweep.base}.get("model.norm") == "pre" and norms != {"post"}:
        notes.append(
            "Where a row does not say otherwise, the norm comes before the sub-layer (pre), not after it (post) as in "
            "the paper: post-norm spends a short training on a plateau, as a language model whose cross-attention has "
            "not been learned. tensor2tensor made pre-norm its default in October 2017."
        )
    return notes


def settings_notes(rows: Sequence[Row]) -> Iterable[str]:
    """Yields a note for each --set that rows were launched with, and says which; not of what makes no difference."""
    rows_of: dict[str, list[str]] = {}
    for row in rows:
        settings = {f: v for f, v in (row.asked.settings if row.asked else {}).items() if f not in NOT_COMPARED}
        if told := " ".join(f"{f}={show(v)}" for f, v in settings.items() if not says_where(f)):
            rows_of.setdefault(told, []).append(row.label)
    for told, names in rows_of.items():
        yield f"Launched with --set {told}: {'every row' if len(names) == len(rows) else ', '.join(names)}."


def _size_note(found):
    """Returns a note where points of a grid differ in size."""
    grids: dict[str, list] = {}
    for row in found.shown:
        if row.asked and row.asked.point and row.launched:
            grids.setdefault(row.asked.variant, []).append((row.asked.point, row.launched))
    note = budget.differences(grids)
    return (f"{note}.",) if note else ()


def _longer_notes(found):
    """Yields notes on the rows that train longer than the others shown, and for how many steps each was run."""
    usual = {**PAPER, **found.sweep.base}["train.steps"]
    longer = {variant.name for variant in found.sweep.variants if "train.steps" in variant.diff}
    if longer.issuperset(row.asked.variant if row.asked else row.variant.name for row in found.shown):
        return  # there are no others
    for row in found.shown:
        steps = row.variant.diff.get("train.steps")
        if steps and not (row.asked and "train.steps" in row.asked.overrides):
            ran = _range((r.train.steps for r in row.results), ",") if row.results else "not run"
            paper = ", as in the paper" if row.variant.paper else ""
            yield f"{row.variant.name}: trained {steps / usual:.2g} times as long as the others{paper} (steps: {ran})."


_SCORED = {"best": "the checkpoint of the lowest dev loss", "last": "the last checkpoint"}


def _scored_note(found):
    """Returns a note on which of a run's parameters its numbers are of, where results say so."""
    said = (result.dev.parameters for result in found.done)
    which = dict.fromkeys(_SCORED.get(one, f"the {one} checkpoints") for one in said if one is not None)
    return (f"PPL and scores are of {' or '.join(sorted(which))} of a run.",) if which else ()


DIFFERENT = "The runs were trained on different"  # texts or vocabularies


def _untrained_lengths_note(found):
    """Returns a note where training left out long sentences that dev perplexity has."""
    shares = {result.config["data"].get("max_length_quantile", 1.0) for result in found.done}
    if not shares or min(shares) == 1:
        return ()
    return (
        f"Trained on sentences up to quantile {_list(shares)} of their lengths; PPL is of all of dev, the longer too.",
    )


def texts_notes(done: Sequence[RunResult], per_subword: bool = True) -> tuple[str, ...]:
    """Returns a warning where results are not of one text, or, for numbers per subword, not of one vocabulary."""
    if len({result.data.fingerprint for result in done}) > 1:
        return (f"{DIFFERENT} texts: their numbers cannot be compared.",)
    if per_subword and len({result.data.vocabulary_fingerprint for result in done}) > 1:
        return (f"{DIFFERENT} vocabularies: their perplexities cannot be compared.",)
    return ()


def seeds_note(found: Results) -> tuple[str, ...]:
    """Returns a note on what ± is, where any row has several seeds."""
    several = any(len(row.results) > 1 for row in found.shown)
    return ("± is the standard deviation over seeds (n - 1).",) if several else ()


def _device(result: RunResult) -> str:
    device = result.device
    threads = f", {device.threads} threads" if device.threads else ""
    return f"{device.count} x {device.kind}{threads}"


def _environment(result: RunResult) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted((result.environment or {}).items())) or "nothing set"


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, sorted(set(values), key=lambda value: (isinstance(value, str), value))))


def _range(values: Iterable[float], form: str) -> str:
    values = list(values)
    ends = dict.fromkeys((format(min(values), form), format(max(values), form)))
    return " to ".join(ends)


def _counted(values: Iterable[str]) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({n} run{'s' if n > 1 else ''})" for value, n in sorted(counts.items()))
