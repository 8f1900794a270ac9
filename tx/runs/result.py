"""Result of a run: result.json, its one schema. What a table needs has to be there.

Written by `tx.training.outcome.finish` when a run is trained, translated and scored; `launch.gpu.take` copies those of
another machine.

Fields that are None are not known: they were added after a result was written, or what they say does not apply.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from tx import config as config_lib
from tx.errors import UserError
from tx.files import from_json, to_json
from tx.renamed_fields import file_with_new_names
from tx.runs.record import Record

FORMAT = 1  # grows when a field comes to mean something else, never for a new one
_TEXTS = ("data.corpus", "data.source", "data.target", "decode.splits")  # of the configuration, which tables show


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Record):
    """Data of a run.

    Attributes:
      corpus: its name.
      fingerprint, vocabulary_fingerprint: of its sentences, and of the subwords that they were cut into.
    """

    fingerprint: str
    vocabulary_fingerprint: str
    corpus: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device(Record):
    """Device that a run, or a stretch of its training, was computed on.

    Attributes:
      kind, count: the model of a device, and how many were computed on; a CPU is one, whatever its cores.
      platform: "cpu", "gpu" or "tpu".
      threads: that a CPU computed with.
    """

    kind: str
    count: int
    platform: str | None = None
    threads: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Record):
    """Training of the parameters: how much, and on what.

    Attributes:
      steps: updates.
      epochs: passes over the training sentences.
      source_tokens, target_tokens: trained on, without padding.
      flops: floating-point operations, counted by formula (`tx.model.flops.training_flops`).
      padding_share: of the positions of the batches, those that held no token.
      final_loss: the training loss of the last line of the log, in nats a target token.
      too_long, empty: training sentences that were left out for their length, and for having no text on a side.
      longest: subwords of the longest sentence that was trained on, of source or target, whichever has more.
    """

    steps: int
    epochs: float
    target_tokens: int
    flops: float
    source_tokens: int | None = None
    padding_share: float | None = None
    final_loss: float | None = None
    too_long: int | None = None
    empty: int | None = None
    longest: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """Dev loss at a step: `nll` in nats a target token, end of sentence included; `ppl` is exp of it."""

    step: int
    nll: float
    ppl: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dev(Record):
    """Dev loss of the parameters that are translated, and shown in tables.

    Attributes:
      split: its name.
      nll, ppl: as in `Evaluation`.
      tokens: target tokens that they are means over.
      step: the last one that the parameters have learned from.
      parameters: "last", "best" or "average of N" (`tx.runs.selection`).
      nll_without_source: nll where the encoder's output is zero.
    """

    split: str
    nll: float
    ppl: float
    tokens: int | None = None
    step: int | None = None
    parameters: str | None = None
    nll_without_source: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing(Record):
    """Seconds of training, of translating and scoring, and of both, while the process was not stopped.

    Attributes:
      target_tokens_per_s: trained on, over all of the training.
      stacked: runs that were trained side by side, each of which counts its share of the seconds.
    """

    train_s: float
    decode_s: float
    total_s: float
    target_tokens_per_s: float
    stacked: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores(Record):
    """Scores of a split's translations, as `tx.evaluation.scores.score` explains them.

    Attributes:
      lengths: of each sentence, in subwords of source or reference, whichever has more.
    """

    bleu: float
    signature: str
    chrf: float
    bleu_tokenized: float
    bleu_compound: float
    bleu_lower: float
    exact_match: float
    sentences: int | None = None
    matches: tuple[int, ...] | None = None
    stats: Sequence[Sequence[int]] | None = None
    lengths: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric(Record):
    """Metric of the translations (probe.metrics), with what a reader has to know of it where its file is not at hand.

    Attributes:
      meaning: of its column, one line.
      better: which values are.
      digits: behind the point, of a value in a table.
      values: by split; a split where there is none is left out.
      code: digest of the file that defines it.
    """

    meaning: str
    better: Literal["higher", "lower", "neither"]
    digits: int
    values: dict[str, float]
    code: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decode(Record):
    """Decoding options of the translations: "decode" of the configuration (`tx.config`)."""

    beam: int
    alpha: float
    average_last: int
    length_penalty: str | None = None
    splits: str | None = None
    task: str | None = None
    extra_length: int | None = None
    batch_tokens: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head(Record):
    """Measures of a head of attention, as `tx.evaluation.attention_probe.measure_attention` explains it."""

    stack: Literal["encoder", "decoder"]
    layer: int
    kind: Literal["self", "cross"]
    head: int
    entropy: float
    distance: float
    variance: float
    loss_without: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin(Record):
    """Origin of a stretch of a training: what it was computed with, as far as that decides last digits.

    Attributes:
      step: its first; one beyond the training's last where only what came after it was computed so.
      device: those that were used.
      versions: of Python and the libraries, by name.
      environment: as that of the result.
      program: parallel.mode, fsdp_shards and deterministic, train.steps_per_dispatch, how many runs trained side by
        side, and train.remat where that is true.
      seconds: of the training, or the run's share of them; None also where it was another run's.
    """

    step: int
    device: Device
    versions: dict[str, str]
    program: dict[str, object]
    environment: dict[str, str] | None = None
    seconds: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult(Record):
    """Result of a run that is done.

    What a run was computed with, in `device`, `versions` and `environment`, is that of the last steps of its training,
    even where another process, elsewhere, has translated; of a run that took another's parameters it is what these were
    translated with. All that was otherwise is in `origins`.

    Attributes:
      format: FORMAT.
      name: SWEEP/VARIANT@SCALE, or what else the configuration calls itself.
      seed: train.seed of it.
      config: the configuration, nested.
      code: the git commit of the code, with "+" where files differed from it; "" outside a checkout.
      params: how many numbers the model has learned.
      vocab_size: subwords of the vocabulary.
      train, dev, timing, data, device, decode: see there.
      tests: scores by split.
      numerics: the fingerprint of the code (`tx.runs.fingerprint`).
      versions: of Python and the libraries, by name.
      environment: variables that were set and may change numbers, by name (`tx.runtime.environment`); None where none.
      dev_last, dev_best: of the last evaluation, and the one with the lowest loss.
      curve: by step, thinned: training losses, and every evaluation as "dev_nll" and "dev_ppl".
      attention: every head, where it was looked into (probe.attention).
      metrics: of probe.metrics, by name.
      origins: of the stretches of the training of its parameters, in order, and of what came after it where that was
        computed otherwise; None where device, versions and environment tell it all.
      trained_in: the folder of the run whose parameters it took, seen from its own; None where it was trained itself.
    """

    format: int
    name: str
    seed: int
    config: dict[str, object]
    code: str
    params: int
    vocab_size: int
    data: Data
    device: Device
    train: Training
    dev: Dev
    timing: Timing
    tests: dict[str, Scores]
    decode: Decode
    numerics: str | None = None
    versions: dict[str, str] | None = None
    environment: dict[str, str] | None = None
    dev_last: Evaluation | None = None
    dev_best: Evaluation | None = None
    curve: tuple[dict[str, float], ...] | None = None
    attention: tuple[Head, ...] | None = None
    metrics: dict[str, Metric] | None = None
    origins: tuple[Origin, ...] | None = None
    trained_in: str | None = None

    @classmethod
    def from_dict(cls, value: object, where: str = "") -> "RunResult":
        """Reads what was parsed of result.json, fields of the configuration under whichever name they had.

        Raises UserError, as `Record.from_dict`, and for what no table could show.
        """
        if isinstance(value, dict):
            value = file_with_new_names(value)
        result = super().from_dict(value, where)
        if result.format != FORMAT:
            raise UserError(f"format is {result.format}, and this version reads {FORMAT}")
        texts = config_lib.fields(result.config)
        for name in _TEXTS:
            if not isinstance(texts.get(name), str):
                raise UserError(f"config.{name} is {'no text' if name in texts else 'missing'}")
        if result.split not in result.tests:
            raise UserError(f"tests.{result.split} is missing")
        return result

    @classmethod
    def from_json(cls, text: str) -> "RunResult":
        """Reads result.json; UserError, as `from_dict`, and where it is not JSON."""
        try:
            value = from_json(text)
        except ValueError as error:
            raise UserError(f"it is not JSON ({error})") from None
        return cls.from_dict(value)

    def to_json(self) -> str:
        """Returns the text of result.json."""
        return to_json(self.to_dict())

    def abridged(self) -> "RunResult":
        """Returns it without what it says of each sentence, step and head, as it takes most of the memory."""
        apart = dict.fromkeys(("matches", "stats", "lengths"))
        tests = {split: dataclasses.replace(scores, **apart) for split, scores in self.tests.items()}
        return dataclasses.replace(self, tests=tests, curve=None, attention=None)

    @property
    def split(self) -> str:
        """The name of the split that tables show: the first of decode.splits."""
        return self.config["decode"]["splits"].split(",")[0].strip()

    @property
    def scores(self) -> Scores:
        """The scores of that split."""
        return self.tests[self.split]

    @property
    def device_hours(self) -> float:
        """Hours that it took, times the devices that it took them of, each stretch of its training by its own."""
        stretches = self.origins or ()
        if not stretches or any(one.seconds is None for one in stretches):
            return self.timing.total_s / 3600 * self.device.count
        trained = sum(one.seconds * one.device.count for one in stretches)
        return (trained + self.timing.decode_s * stretches[-1].device.count) / 3600

    @property
    def translated(self) -> bool:
        """Whether those are of translations, not of references with one token chosen (`decode.task`)."""
        return self.decode.task in (None, "sentence")
