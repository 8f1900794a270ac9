"""Hugging Face's MarianMTModel with our weights, as a contestant."""

import os
import time

import numpy as np

from experiments.bench.contestants import bundle
from experiments.bench.contestants.weights import EPSILON, Weights
from experiments.bench.harness.machine import peak_memory
from tx.data.vocabulary import EOS, PAD
from tx.runtime.backend import keep_freed_memory


class Decoding:
    """Translates the sentences of a bundle.

    Args:
      folder: of the bundle.
      threads: of PyTorch.
      keep_memory: whether the C library keeps freed memory, as ours does.
    """

    def __init__(self, folder: str, *, threads: int, keep_memory: bool):
        if keep_memory:
            keep_freed_memory()
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self._config, weights, sources = bundle.load(folder)
        self._longest = bundle.longest_output(self._config, sources)
        self._sources = sources
        self._order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        self._model = marian(weights, max(self._longest, max(map(len, sources))) + 1)
        self._batch, self._outputs = 32, []

    def setting(self, batch: int) -> dict:
        """Chooses how many sentences are translated at a time."""
        self._batch = batch
        return {}

    def translate(self) -> dict:
        """As Decoding.translate of `tx_decoding.py`; sentences are sorted by length."""
        began = time.perf_counter()
        outputs = [None] * len(self._sources)
        for start in range(0, len(self._order), self._batch):
            members = self._order[start : start + self._batch]
            for i, output in zip(members, self._generate([self._sources[i] for i in members]), strict=True):
                outputs[i] = output
        seconds = time.perf_counter() - began
        self._outputs = [_text(output) for output in outputs]
        return {"seconds": seconds, "sentences": len(outputs), "tokens": sum(map(len, self._outputs))}

    def outputs(self) -> list[list[int]]:
        return self._outputs

    def memory(self) -> dict:
        return {"peak_mib": peak_memory()}

    def _generate(self, sources):
        rows = np.zeros((len(sources), max(map(len, sources))), np.int64)
        for row, source in zip(rows, sources, strict=True):
            row[: len(source)] = source
        src = self._torch.from_numpy(rows)
        with self._torch.inference_mode():
            return self._model.generate(
                input_ids=src,
                attention_mask=(src != 0).long(),
                num_beams=self._config["decode"]["beam"],
                length_penalty=0.0,
                early_stopping=False,
                do_sample=False,
                max_new_tokens=bundle.longest_output(self._config, sources),
            ).tolist()


def _text(output):
    """What stands between the start symbol and the end of sentence."""
    output = output[1:]
    return output[: output.index(EOS)] if EOS in output else output


def marian(weights: Weights, length: int):
    """Returns our model as a MarianMTModel, for sentences of up to `length` tokens.

    Its three matrices of subwords are kept apart, since token 0, which also starts the output, goes in as zeros.
    """
    import torch
    from transformers import MarianConfig, MarianMTModel

    model = weights.model
    names = {"layers": model["num_layers"], "ffn_dim": model["d_ff"], "attention_heads": model["num_heads"]}
    made = MarianMTModel(
        MarianConfig(
            vocab_size=model["vocab_size"],
            d_model=model["d_model"],
            **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in names.items()},
            max_position_embeddings=length,
            activation_function="relu",
            scale_embedding=model["scale_embedding"],
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
            forced_eos_token_id=None,
            share_encoder_decoder_embeddings=False,
            tie_word_embeddings=False,
            attn_implementation="sdpa",
        )
    ).eval()

    def put(target, array):
        if tuple(target.shape) != array.shape:
            raise ValueError(f"shape {tuple(target.shape)} of Marian's is {array.shape} of ours")
        target.copy_(torch.from_numpy(np.array(array)))

    def linear(target, prefix, name):
        weight, bias = weights.linear(prefix, name)
        put(target.weight, weight)
        put(target.bias, bias)

    with torch.no_grad():
        put(made.lm_head.weight, weights.output)
        for name, side in (("encoder", "source"), ("decoder", "target")):
            stack = getattr(made.model, name)
            put(stack.embed_tokens.weight, weights.embedding)
            put(stack.embed_positions.weight, weights.positions(side, length))
            for i, layer in enumerate(stack.layers):
                prefix = f"{name}_{i}"
                blocks = [("self_attention", layer.self_attn, layer.self_attn_layer_norm)]
                if name == "decoder":
                    blocks.append(("cross_attention", layer.encoder_attn, layer.encoder_attn_layer_norm))
                for number, (block, attention, norm) in enumerate(blocks):
                    for theirs, ours in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
                        linear(getattr(attention, theirs), f"{prefix}/{block}", ours)
                    linear(attention.out_proj, f"{prefix}/{block}", "output")
                    _norm(put, norm, weights.norm(f"{prefix}/residual_{number}"))
                linear(layer.fc1, f"{prefix}/feed_forward", "inner")
                linear(layer.fc2, f"{prefix}/feed_forward", "outer")
                _norm(put, layer.final_layer_norm, weights.norm(f"{prefix}/residual_{len(blocks)}"))
    return made


def _norm(put, target, arrays):
    target.eps = EPSILON
    put(target.weight, arrays[0])
    put(target.bias, arrays[1])
