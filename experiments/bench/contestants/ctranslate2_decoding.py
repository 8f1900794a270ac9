"""CTranslate2 with our weights, as a contestant."""

import tempfile
import time

from experiments.bench.contestants import bundle
from experiments.bench.contestants.weights import EPSILON, Weights
from experiments.bench.harness.machine import peak_memory
from tx.data.vocabulary import EOS, PAD, UNK


class Decoding:
    """Translates the sentences of a bundle.

    Args:
      folder: of the bundle.
      threads: shared out by `setting`.
      compute_type: CTranslate2's, e.g. "float32" or "int8".
    """

    def __init__(self, folder: str, *, threads: int, compute_type: str):
        self._config, weights, sources = bundle.load(folder)
        self._threads, self._compute_type = threads, compute_type
        self._longest = bundle.longest_output(self._config, sources)
        self._sources = [list(map(str, source)) for source in sources]
        self._folder = tempfile.TemporaryDirectory()
        specification(weights, max(self._longest, max(map(len, sources)))).save(self._folder.name)
        self._translator, self._batch, self._results = None, 0, []

    def setting(self, inter: int, batch: int) -> dict:
        """Chooses how many translate side by side, each with threads // inter threads, and sentences of a batch."""
        import ctranslate2

        self._batch = batch
        self._translator = None
        self._translator = ctranslate2.Translator(
            self._folder.name,
            device="cpu",
            compute_type=self._compute_type,
            inter_threads=inter,
            intra_threads=self._threads // inter,
        )
        return {"compute_type": self._translator.compute_type}

    def translate(self) -> dict:
        """As Decoding.translate of `tx_decoding.py`; CTranslate2 sorts the sentences by length."""
        began = time.perf_counter()
        self._results = self._translator.translate_batch(
            self._sources,
            max_batch_size=self._batch,
            beam_size=self._config["decode"]["beam"],
            length_penalty=0,
            min_decoding_length=0,
            max_decoding_length=self._longest,
            max_input_length=0,
        )
        seconds = time.perf_counter() - began
        tokens = sum(len(result.hypotheses[0]) for result in self._results)
        return {"seconds": seconds, "sentences": len(self._results), "tokens": tokens}

    def outputs(self) -> list[list[int]]:
        return [[int(token) for token in result.hypotheses[0]] for result in self._results]

    def memory(self) -> dict:
        return {"peak_mib": peak_memory()}

    def close(self) -> None:
        """Removes the model's files."""
        self._folder.cleanup()


def specification(weights: Weights, length: int):
    """Returns our model as CTranslate2's TransformerSpec, for sentences of up to `length` tokens.

    Pieces are named by their numbers. What a token is worth as input and as output are two matrices here, since token
    0, which also starts the output, goes in as zeros.
    """
    from ctranslate2.specs import TransformerSpec

    model = weights.model
    spec = TransformerSpec.from_config(model["num_layers"], model["num_heads"], pre_norm=False)
    names = [str(i) for i in range(model["vocab_size"])]
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.eos_token, spec.config.unk_token = str(EOS), str(UNK)
    spec.config.bos_token = spec.config.decoder_start_token = str(PAD)
    spec.config.layer_norm_epsilon = EPSILON
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = weights.embedding
    spec.decoder.projection.weight = weights.output
    for side, stack in (("source", spec.encoder), ("target", spec.decoder)):
        stack.scale_embeddings = model["scale_embedding"]
        stack.position_encodings.encodings = weights.positions(side, length)
    for name, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        for i, layer in enumerate(stack.layer):
            prefix = f"{name}_{i}"
            attention = layer.self_attention
            _linear(attention.linear[0], weights.linear(f"{prefix}/self_attention", "query", "key", "value"))
            _linear(attention.linear[1], weights.linear(f"{prefix}/self_attention", "output"))
            norms = [attention.layer_norm]
            if name == "decoder":
                attention = layer.attention
                _linear(attention.linear[0], weights.linear(f"{prefix}/cross_attention", "query"))
                _linear(attention.linear[1], weights.linear(f"{prefix}/cross_attention", "key", "value"))
                _linear(attention.linear[2], weights.linear(f"{prefix}/cross_attention", "output"))
                norms.append(attention.layer_norm)
            _linear(layer.ffn.linear_0, weights.linear(f"{prefix}/feed_forward", "inner"))
            _linear(layer.ffn.linear_1, weights.linear(f"{prefix}/feed_forward", "outer"))
            for number, norm in enumerate([*norms, layer.ffn.layer_norm]):
                norm.gamma, norm.beta = weights.norm(f"{prefix}/residual_{number}")
    spec.validate()
    spec.optimize()
    return spec


def _linear(spec, arrays):
    spec.weight, spec.bias = arrays
