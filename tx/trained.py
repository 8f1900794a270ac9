"""Trained model for use in Python: `tx.load(RUN)` gives one."""

import functools
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from tx.decoding.limits import check_pairs
from tx.decoding.text import encode, translate_lines
from tx.decoding.trained_model import OpenedModel, open_model
from tx.decoding.translator import length_buckets
from tx.errors import UserError
from tx.evaluation.attention_probe import attention_weights
from tx.files import expanded
from tx.model.transformer import Transformer
from tx.runs import imports
from tx.runs.run_dir import RunDir
from tx.runtime import backend, environment


class Attention(NamedTuple):
    """Attention over one sentence pair.

    Attributes:
      weights: {(stack, layer, kind): (h, queries, keys)}; stack is "encoder" or "decoder", layers count from 0, kind is
        "self" or "cross". The one stack of a decoder-only model is a "decoder", over source and then target.
      source: the source's subwords, end of sentence included.
      target: what the decoder reads, one place on: "<start>", then the target's subwords.
    """

    weights: dict[tuple[str, int, str], np.ndarray]
    source: list[str]
    target: list[str]


class TrainedModel:
    """Trained model: a run's parameters and subwords, without its text and without its optimizer's state.

    Sentences are given as a list of strings.

    Args:
      opened: what is read of the run.

    Attributes:
      config: the run's configuration.
      params: the parameters that it selects, as `Transformer(**config.model)` takes them.
      vocabulary: its subwords.
      step: the last that the parameters have learned from.
    """

    def __init__(self, opened: OpenedModel):
        self._opened = opened
        self.config, (self.params, self.step, _), self.vocabulary = opened
        self._model = FrozenConfigDict(self.config.model.to_dict())

    def encode(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """Returns the tokens of each sentence, without the blanks around it: int32, end of sentence included."""
        return encode(self.vocabulary, [sentence.strip() for sentence in _listed(sentences)])

    def translate(self, sentences: Sequence[str]) -> list[str]:
        """Returns the translations, by beam search as config.decode says; an empty sentence stays empty.

        Raises UserError for one that is longer than the model can take.
        """
        return translate_lines(self._opened, _listed(sentences), all_or_none=True).lines

    def logits(self, src: Sequence[str], tgt: Sequence[str]) -> np.ndarray:
        """Returns the logits of the target's tokens: float32 (sentences, length of the longest target, V).

        Row t scores token t of the target (`encode`), and has seen those before it alone; behind a sentence's end there
        is nothing of meaning. Raises UserError as `translate`.
        """
        pairs = self._pairs(src, tgt)
        if not pairs:
            return np.zeros((0, 0, self.config.model.vocab_size), np.float32)
        sides = (_rows([pair[side] for pair in pairs]) for side in (0, 1))
        return np.asarray(_logits(self._model, self.params, *sides))

    def score(self, src: Sequence[str], tgt: Sequence[str]) -> np.ndarray:
        """Returns each target's log-probability given its source: float64 (sentences,), in nats.

        It is the sum over the target's tokens, end of sentence included. Raises UserError as `translate`.
        """
        pairs = self._pairs(src, tgt)
        scores, lengths = np.zeros(len(pairs)), [max(map(len, pair)) for pair in pairs]
        for length, rows, members in length_buckets(lengths, self.config.decode.batch_tokens):
            sides = (_rows([pairs[i][side] for i in members], rows, length) for side in (0, 1))
            scores[members] = np.asarray(_log_probabilities(self._model, self.params, *sides))[: len(members)]
        return scores

    def attention(self, src: str, tgt: str | None = None) -> Attention:
        """Returns the weights of every head over a sentence and its target, by default its translation.

        Raises UserError as `translate`.
        """
        tgt = self.translate([src])[0] if tgt is None else tgt
        ((source, target),) = self._pairs([src], [tgt])
        weights = attention_weights(self.config, self.params, source.tolist(), target.tolist())
        before, after = ([self.vocabulary.piece(int(token)) for token in side] for side in (source, target))
        return Attention(weights, before, ["<start>", *after[:-1]])

    def _pairs(self, src, tgt):
        """Returns the tokens of each pair; UserError for one too long, and for more of one side than of the other."""
        sources, targets = self.encode(src), self.encode(tgt)
        if len(sources) != len(targets):
            raise UserError(f"{len(sources)} sources and {len(targets)} targets; give one target for each source")
        check_pairs(self.config, pairs := list(zip(sources, targets, strict=True)))
        return pairs


def load(run: str | os.PathLike, options: dict) -> TrainedModel:
    """Returns the trained model of a run's folder; see `tx.load`."""
    run = RunDir(expanded(run))
    imports.recall([run.path])
    environment.refuse_other_numbers()
    backend.start()
    return TrainedModel(open_model(run, options))


def _listed(sentences):
    """Returns the sentences; UserError for one string, whose characters would be taken for them."""
    if isinstance(sentences, str):
        raise UserError(f"a list of sentences is wanted; got one, {sentences[:40]!r}: write [...] around it")
    return list(sentences)


def _rows(sentences, rows=None, length=None):
    """Returns tokens as rows, by default as many and as long as they need; 0 where there is none."""
    made = np.zeros((rows or len(sentences), length or max(map(len, sentences))), np.int32)
    for row, tokens in zip(made, sentences, strict=False):
        row[: len(tokens)] = tokens
    return made


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, src, tgt):
    return Transformer(**model).apply({"params": params}, src, tgt)


@functools.partial(jax.jit, static_argnums=0)
def _log_probabilities(model, params, src, tgt):
    """Returns the sum over each row's target (b,), with the logits of one row at a time."""
    module = Transformer(**model)
    hidden = module.apply({"params": params}, src, tgt, method="hidden")

    def of_row(row):
        states, tokens = row
        logits = module.apply({"params": params}, states[None], method="logits")[0]
        found = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, None], axis=1)[:, 0]
        return jnp.where(tokens != 0, found, 0.0).sum()

    return jax.lax.map(of_row, (hidden, tgt))
