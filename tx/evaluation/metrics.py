"""Metrics of translations, by name: `@metrics.register(NAME, MEANING, BETTER)` adds one, a column of the tables.

A run has those that probe.metrics names. They are computed when it is translated; result.json keeps their values, and
what a table has to say of them. They make no training another one, so that a launch with another metric takes the
parameters that are there, and a run whose metric failed is not trained again once that is mended.
"""

import dataclasses
import inspect
import math
import numbers
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, get_args, get_type_hints

from ml_collections import ConfigDict

from tx import components
from tx.errors import UserError
from tx.evaluation.tokenizers import characters, has_spaces
from tx.fields import FIELDS, Field
from tx.files import digest
from tx.registry import Configured, Registry
from tx.runs.result import Metric, RunResult, Scores

if TYPE_CHECKING:
    from tx.evaluation.translation import TranslatedSplit  # which imports JAX

BETTER = get_args(get_type_hints(Metric)["better"])
_TAKEN = {"ppl", "nll", *(field.name for field in dataclasses.fields(Scores))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translations:
    """Translations of a split, of which a metric gives a number.

    Attributes:
      sources, translations, references: of each sentence, as text.
      scores: what is known of them already: BLEU, chrF and so on.
      result: of the run, whole but for its metrics: configuration, dev loss, learning curve, costs.
    """

    sources: list[str]
    translations: list[str]
    references: list[str]
    scores: Scores
    result: RunResult


class _About(NamedTuple):
    """What a reader of a metric's column has to know."""

    meaning: str
    better: str
    digits: int
    code: str | None


def _digest(metric):
    """Returns what identifies the file of a metric; None where there is none, as in a notebook."""
    try:
        return digest(pathlib.Path(inspect.getfile(inspect.unwrap(metric))))[:12]
    except (OSError, TypeError):
        return None


class Metrics:
    """Registry of metrics; any number of them are chosen by their names, with commas between.

    Args:
      field: the configuration field that holds the names.
    """

    def __init__(self, field: str):
        self._registry = Registry(field, positional=1)
        self._about = {}

    def register(
        self, name: str, meaning: str, better: str = "neither", digits: int = 1, /, **own: Field
    ) -> Callable[[Callable], Callable]:
        """Returns a decorator that makes a metric available under `name`; a name is taken once.

        The metric is a function of `Translations`, and of its fields by name, that gives a finite number, or None where
        there is none.

        Args:
          name: for the configuration and the column.
          meaning: of the column, one line.
          better: which values are: "higher", "lower" or "neither".
          digits: behind the point, in a table.
          own: fields of its own, as `tx.registry.Registry.register` takes them: least=Field(3, "what it is") of the
            metric "copied" is probe.copied.least.

        Raises ValueError where these do not do.
        """
        what, taken = f"{self._registry.field} {name!r}", f"{self._registry.group}.{name}" in FIELDS
        if taken or not re.fullmatch(r"[A-Za-z]\w*", name) or name.lower() in _TAKEN:
            raise ValueError(f"{what}: a metric's name has letters, digits and _, and is no other score's or field's")
        if better not in BETTER:
            raise ValueError(f"{what}: what is better is one of {', '.join(BETTER)}; got {better!r}")
        if not meaning.strip() or len(meaning.splitlines()) > 1:
            raise ValueError(f"{what}: the meaning of a metric is one line; got {meaning!r}")

        def add(metric):
            self._registry.register(name, **own)(metric)
            self._about[name] = _About(meaning, better, digits, _digest(metric))
            return metric

        return add

    def of(self, group: ConfigDict | Mapping) -> Iterator[tuple[str, Callable, _About]]:
        """Yields name, function and what is to be said of each metric that a group of a configuration chooses."""
        for name in components.chosen(self._registry.field, group[self._registry.leaf]):
            declared = components.declaration(self._registry.field, name)
            values = dict(group[name]) if declared.own else {}
            yield name, self._registry[Configured(name, tuple(values.items()))], self._about[name]

    def check(self, group: ConfigDict | Mapping) -> None:
        """Raises UserError, with the nearest, for a metric that a group of a configuration chooses and is not here."""
        for name in components.chosen(self._registry.field, group[self._registry.leaf]):
            _ = self._registry[name]

    def __iter__(self):
        return iter(self._registry)


metrics = Metrics("probe.metrics")


@metrics.register("length_ratio", "words of the translations for each of the references", "neither", 2)
def length_ratio(given: Translations) -> float | None:
    """Returns the length of the translations for each word of the references; characters where no spaces are."""
    counted = str.split if has_spaces(given.result.config["data"]["target"]) else str.strip
    ours, theirs = (sum(len(counted(text)) for text in side) for side in (given.translations, given.references))
    return ours / theirs if theirs else None


@metrics.register(
    "ter",
    "edits for each hundred words (characters where there are no spaces) of the references, in lower case",
    "lower",
)
def ter(given: Translations, *, normalized: bool) -> float:
    """Returns the translation edit rate (Snover et al. 2006), as sacreBLEU computes it; of characters without spaces.

    sacreBLEU's own way, asian_support, cuts a text only where it is normalized, and not Thai, Lao, Khmer and the like.
    """
    import sacrebleu  # slow to import

    sides = [given.translations, given.references]
    if not has_spaces(given.result.config["data"]["target"]):
        sides = [list(map(characters, side)) for side in sides]
    translations, references = sides
    return sacrebleu.TER(normalized=normalized).corpus_score(translations, [references]).score


def add(result: RunResult, config: ConfigDict, translated: Mapping[str, "TranslatedSplit"]) -> RunResult:
    """Returns the result with the metrics that the configuration names, of each split that was translated.

    Raises UserError for a metric that gives no finite number.
    """
    found = {}
    for name, metric, about in metrics.of(config.probe):
        values = {split: metric(_given(result, split, one)) for split, one in translated.items()}
        for split, value in values.items():
            _check(name, split, value)
        values = {split: float(value) for split, value in values.items() if value is not None}
        found[name] = Metric(values=values, **about._asdict())
    return dataclasses.replace(result, metrics=found) if found else result


def _given(result, split, translated):
    """Returns what a metric is given of a split."""
    texts = {name: list(getattr(translated, name)) for name in ("sources", "translations", "references")}
    return Translations(scores=result.tests[split], result=result, **texts)


def _check(name, split, value):
    if value is None or (isinstance(value, numbers.Real) and math.isfinite(value)):
        return
    raise UserError(
        f"probe.metrics={name} gave {value!r} for split {split}: a metric gives a finite number, or None for no number"
    )
