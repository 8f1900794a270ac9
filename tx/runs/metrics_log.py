"""Metrics log of a run: metrics.jsonl, TensorBoard events and a progress bar."""

import contextlib
import hashlib
import json
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tx.errors import UserError, writing
from tx.files import from_json, read_bytes, read_tail, write_atomically
from tx.runs import tensorboard
from tx.runs.run_dir import RunDir

FOLDER = "tensorboard"  # of the events
_LARGEST = 1e18  # of a number to compute with that others may have written
_TAIL = 4096  # bytes: the newest lines of metrics.jsonl


class Log:
    """Log of one run's metrics; use as a context manager.

    Args:
      run: the run's folder.
      steps: the number of training steps.
      first: the step that training starts from; what an interrupted run wrote of later steps is dropped, and what is
        kept of metrics.jsonl is made anew as events.
      before: how many lines there were at that step, where that is known: others behind them are not this run's.
      label: tells this run's lines from those of others on the same console.
      bar: where its progress is shown, if it shares it with others.
    """

    def __init__(
        self,
        run: RunDir,
        steps: int,
        first: int = 0,
        label: str = "",
        bar: Progress | None = None,
        before: int | None = None,
    ):
        self._file = run.metrics
        with writing(self._file):
            kept = _kept(run, first, before)
            self._digest, self._count = hashlib.sha256(), 0
            self._lines = self._file.open("a", encoding="utf-8")
            self._events = tensorboard.Events(run.path / FOLDER)
            for line in kept:
                self._note(json.dumps(line) + "\n")
                self._add(line)
            self._events.flush()
        self._prefix, self._bar = f"{label}: " if label else "", progress_bar() if bar is None else bar
        self._task = self._bar.add_task(label or "training", total=steps, completed=first, loss="-", speed="-")

    def __enter__(self):
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()
        with writing(self._file), contextlib.closing(self._events):
            self._lines.close()

    def write(self, step: int, values: dict[str, float], timing: dict[str, float]) -> None:
        """Records values at a step; clock readings go apart, since they alone differ from run to run.

        The time of day is one of them: "time", in seconds since 1970.
        """
        line = {"step": step, **values, "timing": {"time": time.time(), **timing}}
        with writing(self._file):
            self._lines.write(text := json.dumps(line) + "\n")
            self._lines.flush()
            self._note(text)
            self._add(line)
            self._events.flush()
        if "loss" in values:
            speed = f"{timing['target_tokens_per_s']:,.0f}"
            self._bar.update(self._task, completed=step, loss=f"{values['loss']:.3f}", speed=speed)
        if not self._bar.console.is_terminal:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"{self._prefix}step {step}  {shown}", flush=True)

    def written(self) -> dict[str, int | str]:
        """Returns {"lines", "sha256"} of metrics.jsonl so far, for a checkpoint; see `holds`."""
        return {"lines": self._count, "sha256": self._digest.hexdigest()}

    def _note(self, text):
        self._digest.update(text.encode())
        self._count += 1

    def _add(self, line):
        values = line | line["timing"]
        when = values.pop("time", time.time())  # lines had none once
        self._events.add(line["step"], {k: v for k, v in values.items() if k not in ("step", "timing")}, when)


def progress_bar() -> Progress:
    """Returns a display, not yet started, of one line a run."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  {task.fields[speed]} target tokens/s"),
        TimeRemainingColumn(),
    )


def read_metrics(run: RunDir) -> list[dict]:
    """Returns the lines of metrics.jsonl; one that a killed run left unfinished does not count.

    Raises UserError for any other line that is not as it was written.
    """
    return [_parsed(run, *numbered) for numbered in enumerate(_complete_lines(run), start=1)]


def newest(folder: RunDir) -> dict[str, float]:
    """Returns the newest "step", "loss" and "target_tokens_per_s" in metrics.jsonl, those that are there."""
    names, found = ("step", "loss", "target_tokens_per_s"), {}
    for line in _newest_first(folder):
        found = {name: line[name] for name in names if name in line} | found
        if len(found) == len(names):
            break
    return found


def newest_lines(folder: RunDir) -> list[dict[str, float]]:
    """Returns the numbers of the newest whole lines of metrics.jsonl, those of "timing" among them."""
    return [*_newest_first(folder)][::-1]


def _newest_first(folder):
    """Yields what `newest_lines` returns, from the end: of ten thousand runs, what is not asked for is not parsed."""
    try:
        lines = read_tail(folder.metrics, _TAIL).decode("utf-8", errors="replace").split("\n")
    except OSError:  # there is none yet, or it is no file, which the run itself will say
        return
    for line in reversed(lines):
        try:
            record = from_json(line)
            flat = record | record.get("timing", {})
        except (ValueError, TypeError, AttributeError):
            continue  # cut at the start of the tail, or still being written; or no record at all
        yield {name: value for name, value in flat.items() if _is_number(value)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _LARGEST  # not NaN either


def holds(run: RunDir, lines: int, digest: str) -> bool:
    """Returns whether metrics.jsonl begins with so many lines of such a SHA-256, as `Log.written` gave them."""
    found = _complete_lines(run)[:lines]
    return len(found) == lines and hashlib.sha256(b"".join(line + b"\n" for line in found)).hexdigest() == digest


def _parsed(run, number, line):
    try:
        found = from_json(line.decode("utf-8"))
        if not _are_metrics(found):
            raise ValueError("no metrics")
    except ValueError as error:
        raise UserError(
            f"{run.metrics}, line {number}, is damaged ({error}); start again: it goes on from a checkpoint before that"
        ) from None
    return found


def _are_metrics(found):
    if not isinstance(found, dict) or not isinstance(found.get("timing"), dict) or type(found.get("step")) is not int:
        return False
    values = [value for name, value in found.items() if name != "timing"] + list(found["timing"].values())
    return all(type(value) is float or (type(value) is int and abs(value) < 1 << 62) for value in values)


def _kept(run, first, before):
    """Cuts metrics.jsonl off after a step, or so many lines, deletes all events, and returns the lines that are left.

    A line that is damaged and that none of an earlier step follows goes with those of later steps.
    """
    if not run.metrics.exists():
        return []
    kept, damage = [], None
    for number, text in enumerate(_complete_lines(run)[:before], start=1):
        try:
            line = _parsed(run, number, text)
        except UserError as error:
            damage = damage or error
            continue
        if line["step"] <= first:
            if damage:
                raise damage
            kept.append(line)
    write_atomically(run.metrics, "".join(json.dumps(line) + "\n" for line in kept))
    tensorboard.delete(run.path / FOLDER)
    return kept


def _complete_lines(run):
    """Returns the lines that end, none where there is no metrics.jsonl; UserError where it cannot be read."""
    try:
        return read_bytes(run.metrics, most=None).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {run.metrics}: {error.strerror}; delete it, or put it back as it was") from None
