"""Status of a row, in words for a table's cell, and the footnotes that those refer to."""

from collections import Counter
from collections.abc import Iterable

from experiments.report.metrics import DIVERGED, NO_DEV_LOSS, has_no_dev_loss, is_diverged
from experiments.report.results import Row, SeedRun
from tx.errors import UserError
from tx.runs import state as states
from tx.runs.run_dir import RunDir
from tx.runs.state import RunState


class Footnotes:
    """Footnotes of a table, each said once."""

    def __init__(self):
        self._texts: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """Adds a note and returns its mark, " [1]"; nothing for no text."""
        if not text:
            return ""
        return f" [{self._texts.setdefault(text, len(self._texts) + 1)}]"

    def marks(self, texts) -> str:
        """Adds notes and returns their marks, each once."""
        return "".join(dict.fromkeys(map(self.mark, texts)))

    @property
    def lines(self) -> tuple[str, ...]:
        """The notes, numbered."""
        return tuple(f"[{number}] {text}" for text, number in self._texts.items())


def state_of(row: Row, seeds: list[int], notes: Footnotes, flags: Iterable[tuple[str, str]] = ()) -> str:
    """Returns the status of a row: "done", "2 of 3 done, 1 missing", "failed [1]", "3 done, 1 diverged [2], stale [3]".

    Args:
      row: the row.
      seeds: those that it should have.
      notes: where footnotes are added.
      flags: what else is said of it, and the footnote of each (`experiments.report.flags.of`).
    """
    expected = max(1, len(seeds))
    counts = Counter(word_for(run.state) for run in row.runs)
    counts["missing"] = expected - len(row.runs)
    parts = []
    for state in ("done", "failed", "begun", "missing"):
        if counts[state] == expected:
            part = f"{expected} done" if state == "done" and expected > 1 else state
        elif state == "done":
            part = f"{counts[state]} of {expected} done" if expected not in counts.values() else ""
        else:
            part = f"{counts[state]} {state}" if counts[state] else ""
        if part and state == "failed":
            part += notes.marks(run.state.reason for run in row.runs)
        parts.append(part)

    def some(number):
        return "" if number == counts["done"] else f"{number} "

    for word, holds, note in (
        ("diverged", is_diverged, DIVERGED),
        ("dev loss not finite", has_no_dev_loss, NO_DEV_LOSS),
    ):
        if count := sum(map(holds, row.results)):
            parts.append(f"{some(count)}{word}{notes.mark(note)}")
    parts += [f"{flag}{notes.mark(text)}" for flag, text in flags]
    stale = [run for run in row.runs if run.stale]
    if stale:
        parts.append(f"{some(len(stale))}stale{notes.marks('Stale: ' + '; '.join(run.stale) + '.' for run in stale)}")
    return ", ".join(filter(None, parts))


def state_now(row: Row, run: SeedRun) -> RunState:
    """Returns the state of a run of a row at this moment, one that is running or made by other code told apart."""
    if run.state.finished and run.result is None:
        return run.state  # damaged
    try:
        return states.of(RunDir(run.path), lambda config: "; ".join(row.changes(config)), run.result)
    except UserError as error:
        return RunState("failed", str(error))


def word_for(state: RunState) -> str:
    """Returns "done", "failed" or "begun": which of the last are running would be out of date soon."""
    return state.name if state.name in ("done", "failed") else "begun"
