"""The registry of sweeps: one string, SWEEP/VARIANT@SCALE, names any run and gives its configuration.

A variant is a diff, in the paper's own numbers, against its sweep's base; a scale (experiments/scales.py) is
a dial applied to it. `base` never moves.
"""

import dataclasses
import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import ml_collections

import experiments
import tx.config
from experiments.scales import EVERY, PAIR, SCALES, Scale, parse_scale
from tx import components
from tx.errors import UserError, nearest, unknown

# Python prefers a folder of that name in the current one to an editable install, whose modules it finds all the same;
# what the package's own __init__ registers would be missing.
if experiments.__file__ is None:
    hiding = next(path for path in experiments.__path__ if path != os.path.dirname(__file__))
    raise SystemExit(f"error: the folder {hiding} hides this project's package of that name; start from elsewhere")


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """Numbers that the paper prints for a row; None where it prints none.

    Attributes:
      ppl: dev perplexity per subword of the paper's vocabulary.
      bleu: BLEU, tokenised and compound-split, of the sentences that the sweep translates.
      params: parameters in millions, as printed.
    """

    ppl: float | None = None
    bleu: float | None = None
    params: float | None = None


@dataclasses.dataclass(frozen=True)
class Variant:
    """Row of a table, as a diff against its sweep's base.

    Attributes:
      name: unique in its sweep; slashes group rows ("A/h=1").
      diff: {dotted configuration field: value} against the sweep's base, in the paper's numbers.
      paper: the paper's numbers, if the row stands in a paper.
      note: a footnote for listings and tables.
      pairs: {"source-target": the variant of that name} of language pairs for which it is another.
    """

    name: str
    diff: Mapping[str, object] = dataclasses.field(default_factory=dict)
    paper: PaperRow | None = None
    note: str = ""
    pairs: Mapping[str, "Variant"] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Sweep: a table of variants of one base.

    Attributes:
      name: what stands before the first slash of a run's name.
      base: {dotted field: value} against `tx.config.get_config()`, for every row; empty for the paper's base.
      variants: the rows in order; the first is the base and has an empty diff.
      doc: one line for listings and captions.
      measures: names of what its table shows beside perplexity and BLEU (experiments/report/metrics.py).
    """

    name: str
    base: Mapping[str, object]
    variants: tuple[Variant, ...]
    doc: str
    measures: tuple[str, ...] = ()

    def variant(self, name: str) -> Variant:
        """Returns the variant of that name; UserError naming the nearest where there is none."""
        return _lookup({v.name: v for v in self.variants}, name, f"variant of sweep {self.name}")

    def of_pair(self, scale: Scale) -> "Sweep":
        """Returns the sweep with each variant as it is for the language pair of a scale.

        What is printed of a variant with `pairs` is, as it stands, of English to German: of another pair nothing is.
        """
        if scale.pair == PAIR or not any(one.pairs for one in self.variants):
            return self
        return dataclasses.replace(self, variants=tuple(_of_pair(one, scale.pair) for one in self.variants))


def _of_pair(one: Variant, pair: tuple[str, str]) -> Variant:
    return one.pairs.get("-".join(pair)) or (dataclasses.replace(one, paper=None, note="") if one.pairs else one)


class Run(NamedTuple):
    """Run, as its name says it: sweep, variant and scale."""

    sweep: Sweep
    variant: Variant
    scale: Scale

    @property
    def name(self) -> str:
        """SWEEP/VARIANT@SCALE."""
        return f"{self.sweep.name}/{self.variant.name}@{self.scale.label}"


_SWEEPS: dict[str, Sweep] = {}
_CHECKS: list[Callable[[Sweep], None]] = []


def check_with(check: Callable[[Sweep], None]) -> None:
    """Calls `check` with every sweep, those that are registered and those to come; it raises ValueError for a bad one.

    What stands above this module says so what it knows of sweeps.
    """
    for sweep in _SWEEPS.values():
        check(sweep)
    _CHECKS.append(check)


def register(sweep: Sweep) -> Sweep:
    """Adds a sweep; ValueError where its name is taken or it is malformed. Returns it."""
    names = [v.name for v in sweep.variants]
    if sweep.name in _SWEEPS:
        raise ValueError(f"sweep {sweep.name!r} is registered already")
    if not names or sweep.variants[0].diff:
        raise ValueError(f"sweep {sweep.name!r}: the first variant is the base and has an empty diff")
    if len(set(names)) < len(names):
        raise ValueError(f"sweep {sweep.name!r} names a variant twice")
    if "/" in sweep.name or any(c in name for name in (sweep.name, *names) for c in "@*?[]:, "):
        raise ValueError(f"sweep {sweep.name!r}: no name has @ * ? [ ] : , or spaces, and a sweep's no slash")
    if any(re.search(r"[\x00-\x1f\x7f-\x9f]", name) for name in (sweep.name, *names)):
        raise ValueError(f"sweep {sweep.name!r}: no name has control characters")
    if wrong := [name for name in names if any(re.fullmatch(r"|\.\.?|seed\d+", part) for part in name.split("/"))]:
        # It would be another's folder, or that of a run.
        raise ValueError(f"sweep {sweep.name!r}: {wrong[0]!r} has a part that is empty, '.', '..' or 'seed' and digits")
    for check in _CHECKS:
        check(sweep)
    _SWEEPS[sweep.name] = sweep
    return sweep


def sweeps() -> list[Sweep]:
    """Returns every registered sweep, in order of registration."""
    return list(_SWEEPS.values())


def sweep(name: str) -> Sweep:
    """Returns the sweep of that name; UserError naming the nearest where there is none."""
    return _lookup(_SWEEPS, name, "sweep", " (one of your own needs --import FILE.py)")


def variants(name: str) -> list[Variant]:
    """Returns the variants of a sweep, in the order of its table."""
    return list(sweep(name).variants)


def parse(name: str) -> Run:
    """Reads "SWEEP/VARIANT@SCALE"; UserError where a part is missing or unknown, naming the nearest."""
    path, scale = _split(name)
    sweep_name, slash, variant = path.partition("/")
    found = sweep(sweep_name)
    if not slash:
        example = f"{path}/{found.variants[0].name}@{parse_scale(scale).label}"
        raise UserError(f"{name!r} is a sweep; name a variant, e.g. {example}")
    found = found.of_pair(parse_scale(scale))
    return Run(found, found.variant(variant), parse_scale(scale))


def parse_sweep(name: str) -> tuple[Sweep, Scale]:
    """Reads "SWEEP@SCALE"; UserError as in `parse`."""
    path, label = _split(name)
    scale = parse_scale(label)
    return sweep(path).of_pair(scale), scale


def get_config(name: str, overrides: Mapping[str, object] | None = None) -> ml_collections.ConfigDict:
    """Returns the whole configuration of the run "SWEEP/VARIANT@SCALE", validated and locked.

    Args:
      name: the run.
      overrides: {dotted field: value} set last, at the size that runs: the scale's factors leave them alone.
    """
    run = parse(name)
    return resolve(run.sweep, run.variant, run.scale, overrides)


def resolve(
    sweep: Sweep, variant: Variant, scale: Scale, overrides: Mapping[str, object] | None = None
) -> ml_collections.ConfigDict:
    """Returns the configuration of a variant, registered or not, at a scale.

    Order: defaults, the scale's recipe, the sweep's base, the variant, the scale's factors, `overrides`. What sweep or
    variant say of the recipe (steps, warm-up, learning-rate factor) is taken in proportion to the scale's; overrides
    are taken as they are.
    """
    config = assemble(sweep, variant, scale, overrides)
    try:
        tx.config.validate(config)
    except UserError as error:
        raise UserError(f"{config.name}: {error}") from None
    return config


def assemble(
    sweep: Sweep, variant: Variant, scale: Scale, overrides: Mapping[str, object] | None = None
) -> ml_collections.ConfigDict:
    """Returns what `resolve` does, before it is validated."""
    name = Run(sweep, variant, scale).name
    config = tx.config.get_config()
    tx.config.update(config, scale.settings(), f"scale {scale.label}")
    tx.config.update(config, scale.rescale_recipe({**sweep.base, **variant.diff}, name), name)
    tx.config.update(config, scale.scale_sizes(tx.config.fields(config), name), name)
    tx.config.update(config, overrides or {})
    config.name = name
    return config


def base_config(sweep: Sweep, scale: Scale) -> ml_collections.ConfigDict:
    """Returns the configuration that the rows of a sweep are diffs against, at a scale."""
    return resolve(sweep, sweep.variants[0], scale)


def diff(config: ml_collections.ConfigDict, base: ml_collections.ConfigDict) -> dict[str, object]:
    """Returns {dotted field: value} of `config` where it differs from `base`.

    Its name aside, and how often it is evaluated and saved where that follows from how long it trains. A field that
    `base` has not, as it is of a component that `base` does not use, is compared with its default.
    """
    before = {name: field.default for name, field in components.known_fields().items()} | tx.config.fields(base)
    implied = {"name", *(EVERY if config.train.steps != base.train.steps else ())}
    return {k: v for k, v in tx.config.fields(config).items() if k not in implied and v != before[k]}


def select(pattern: str) -> list[str]:
    """Returns the names of runs that a shell glob on SWEEP/VARIANT@SCALE or SWEEP@SCALE selects.

    SWEEP@SCALE means every variant; `*` crosses slashes. UserError where nothing matches.
    """
    path, label = _split(pattern)
    scales = _glob(SCALES, label) if _is_glob(label) else [parse_scale(label).label]
    if not scales:
        raise UserError(f"{pattern!r}: no scale matches {label!r} (there are {', '.join(SCALES)})")
    if not _is_glob(path):
        name, slash, variant = path.partition("/")
        paths = [f"{name}/{sweep(name).variant(variant).name}"] if slash else _paths([sweep(name)])
    else:
        whole = set(_glob(_SWEEPS, path))
        every = _paths(sweeps())
        paths = [p for p in every if p.partition("/")[0] in whole or fnmatch.fnmatchcase(p, path)]
        if not paths:
            raise UserError(f"{pattern!r} matches no variant; the nearest is {nearest(path, every)!r}")
    return [f"{path}@{scale}" for scale in scales for path in paths]


def _paths(some: Iterable[Sweep]) -> list[str]:
    return [f"{s.name}/{v.name}" for s in some for v in s.variants]


def _glob(names: Iterable[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def _is_glob(text: str) -> bool:
    return any(c in text for c in "*?[")


def _split(name: str) -> tuple[str, str]:
    path, at, scale = name.rpartition("@")
    if not at or not scale or not path:
        example = f"{path or scale or 'table3'}@smoke"
        raise UserError(f"{name!r} is not SWEEP[/VARIANT]@SCALE; write {example!r}")
    return path, scale


def _lookup(known: Mapping[str, object], name: str, what: str, more: str = ""):
    if name not in known:
        raise unknown(f"unknown {what}", name, known, more)
    return known[name]
