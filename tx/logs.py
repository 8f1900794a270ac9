"""What a run says while it runs: metrics.jsonl, TensorBoard events, and a progress bar."""

import json

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tx.run import RunDir, write_atomically


class Log:
    """Writes one run's metrics as they come; use as a context manager.

    Args:
      run: the run's folder.
      steps: the number of training steps.
      first: the step that training starts from; what an interrupted run wrote of later steps is dropped.
      label: tells this run's lines from those of others on the same console.
      bar: where its progress is shown, if it shares it with others.
    """

    def __init__(self, run: RunDir, steps: int, first: int = 0, label: str = "", bar: Progress | None = None):
        from tensorboard.summary import Writer  # slow to import, and only training writes events

        if run.metrics.exists():
            kept = [line for line in read_metrics(run) if line["step"] <= first]
            write_atomically(run.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        self._lines = run.metrics.open("a", encoding="utf-8")
        self._events = Writer(str(run.path / "tensorboard"))
        self._prefix, self._bar = f"{label}: " if label else "", progress_bar() if bar is None else bar
        self._task = self._bar.add_task(label or "training", total=steps, completed=first, loss="-", speed="-")

    def __enter__(self):
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()
        self._lines.close()
        self._events.close()

    def write(self, step: int, values: dict[str, float], timing: dict[str, float]) -> None:
        """Records values at a step; clock readings go apart, since they alone differ from run to run."""
        self._lines.write(json.dumps({"step": step, **values, "timing": timing}) + "\n")
        self._lines.flush()
        for name, value in (values | timing).items():
            self._events.add_scalar(name, value, step)
        if "loss" in values:
            speed = f"{timing['target_tokens_per_s']:,.0f}"
            self._bar.update(self._task, completed=step, loss=f"{values['loss']:.3f}", speed=speed)
        if not self._bar.console.is_terminal:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"{self._prefix}step {step}  {shown}", flush=True)


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
    """Returns the lines of metrics.jsonl; one that a killed run left unfinished does not count."""
    whole = run.metrics.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in whole]
