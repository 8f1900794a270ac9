"""Our beam search as a contestant."""

import time

import numpy as np
from ml_collections import ConfigDict

from experiments.bench.contestants import bundle
from experiments.bench.harness.machine import peak_memory
from tx import plugins
from tx.data.vocabulary import EOS
from tx.runtime.backend import ARENAS, keep_freed_memory


class Decoding:
    """Translates the sentences of a bundle with tx.decoding.translator.Translator.

    Args:
      folder: of the bundle.
    """

    def __init__(self, folder: str):
        keep_freed_memory(ARENAS)
        plugins.load()
        from tx.decoding.translator import Translator

        config, weights, sources = bundle.load(folder)
        self._config, self._params = ConfigDict(config), weights.tree()
        self._sources = [np.array(source, np.int32) for source in sources]
        # Where an end of sentence counts is a choice of search on which programs differ: here all do as the peers.
        self._translator = Translator(self._config, self._params, eos_rank=self._config.decode.beam)
        self._outputs = []

    def translate(self) -> dict:
        """Translates every sentence; returns seconds, sentences, and tokens of the output without end of sentence."""
        began = time.perf_counter()
        outputs = self._translator(self._sources)
        seconds = time.perf_counter() - began
        self._outputs = [[int(token) for token in output] for output in outputs]
        return {"seconds": seconds, "sentences": len(outputs), "tokens": sum(map(len, outputs))}

    def outputs(self) -> list[list[int]]:
        """Returns the tokens of the last translations, without end of sentence."""
        return self._outputs

    def memory(self) -> dict:
        return {"peak_mib": peak_memory()}

    def scores(self, numbers: list[int], outputs: list[list[int]]) -> list[float]:
        """Returns the log-probability (nats) of outputs, ended, as translations of the sentences `numbers`."""
        import jax
        import jax.numpy as jnp

        from tx.model.transformer import Transformer

        if not numbers:
            return []
        ended = [[*output, EOS] for output in outputs]
        src = _rows([self._sources[i] for i in numbers])
        tgt = _rows(ended)

        @jax.jit
        def score(params, src, tgt):
            logits = Transformer(**self._config.model).apply({"params": params}, src, tgt)
            each = jnp.take_along_axis(jax.nn.log_softmax(logits), tgt[:, :, None], axis=-1)[:, :, 0]
            return jnp.where(tgt != 0, each, 0.0).sum(1)

        return [float(score(self._params, src[i : i + 1], tgt[i : i + 1])[0]) for i in range(len(numbers))]


def _rows(sentences):
    rows = np.zeros((len(sentences), max(map(len, sentences))), np.int32)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = sentence
    return rows
