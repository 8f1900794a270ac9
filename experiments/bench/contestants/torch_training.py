"""Training in PyTorch as a contestant."""

import os
import tempfile
import time

import numpy as np

from experiments.bench.contestants.length_batches import LengthBatches
from experiments.bench.harness import sentences
from experiments.bench.harness.machine import peak_memory
from tx.runtime.backend import keep_freed_memory


class Training:
    """Trains on batches of sentences of like length.

    Args:
      config: a whole configuration as nested dicts.
      folder: of the sentences.
      layers: "Library" or "Tuned", of `experiments/bench/contestants/torch_model.py`.
      compiled: whether torch.compile is used, with shapes that vary; otherwise PyTorch is eager.
      keep_memory: whether the C library keeps freed memory, as our training makes it do.
      threads: of PyTorch.
      platform: "cpu" or "gpu". With model.dtype bfloat16 it computes under autocast.
    """

    def __init__(
        self,
        config: dict,
        folder: str,
        *,
        layers: str,
        compiled: bool,
        keep_memory: bool,
        threads: int,
        platform: str = "cpu",
    ):
        if keep_memory:
            keep_freed_memory()
        self._kernels = tempfile.TemporaryDirectory()
        # What is compiled is compiled anew, since its time is measured, unless a folder for it is given.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", self._kernels.name)
        import torch

        from experiments.bench.contestants import torch_model

        torch.set_num_threads(threads)
        torch.manual_seed(config["train"]["seed"])
        self._device = torch.device("cuda" if platform == "gpu" else "cpu")
        bfloat16 = config["model"]["dtype"] == "bfloat16"
        if platform == "gpu":
            torch.set_float32_matmul_precision("high")  # of float32: TF32, as JAX's default is
        self._precision = torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=bfloat16)
        self._torch, self._config, self._split = torch, config, sentences.load(folder)
        self._started = peak_memory()
        self.model = torch_model.Transformer(config["model"], getattr(torch_model, layers)).to(self._device).train()
        optim = config["optim"]
        self._adam = torch.optim.Adam(
            self.model.parameters(), betas=(optim["beta1"], optim["beta2"]), eps=optim["epsilon"], fused=True
        )
        self._loss = torch.compile(self._eager_loss, dynamic=True) if compiled else self._eager_loss
        self._steps, self._batches = 0, None

    def layout(self, update_tokens: float, part_tokens: float) -> dict:
        """Chooses the batches: target tokens of an update, and of the parts that it is computed in."""
        if self._device.type == "cuda":  # what was tried before is no part of it
            self._torch.cuda.empty_cache()
            self._torch.cuda.reset_peak_memory_stats()
        seed = self._config["train"]["seed"]
        self._batches = LengthBatches(self._split, seed=seed, update_tokens=update_tokens, part_tokens=part_tokens)
        return {}

    def run(self, target_tokens: int) -> dict:
        """As Training.run of `tx_training.py`; the smoothed targets' entropy stays in the loss."""
        steps = target = source = positions = 0
        batching, began = 0.0, time.perf_counter()
        while target < target_tokens:
            start = time.perf_counter()
            update = next(self._batches)
            counts = [(int(np.count_nonzero(src)), int(np.count_nonzero(tgt))) for src, tgt in update]
            batching += time.perf_counter() - start
            tokens = sum(count for _, count in counts)
            loss = self._update(update, tokens)
            target += tokens
            source += sum(count for count, _ in counts)
            positions += sum(src.size + tgt.size for src, tgt in update)
            steps += 1
        loss = float(loss)  # waits for the last step
        return {
            "seconds": time.perf_counter() - began,
            "batching_s": batching,
            "steps": steps,
            "target_tokens": target,
            "source_tokens": source,
            "positions": positions,
            "loss": loss,
        }

    def memory(self) -> dict:
        """As Training.memory of `tx_training.py`."""
        peak = peak_memory() if self._device.type == "cpu" else self._torch.cuda.max_memory_allocated() / 2**20
        return {"peak_mib": peak, "started_mib": self._started}

    def close(self) -> None:
        """Removes what was compiled."""
        self._kernels.cleanup()

    def _update(self, update, tokens):
        self._steps += 1
        for group in self._adam.param_groups:
            group["lr"] = self._rate()
        total = 0.0
        for src, tgt in update:
            loss = self.loss(src, tgt, tokens)
            loss.backward()
            total += loss.detach()
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        return total

    def loss(self, src: np.ndarray, tgt: np.ndarray, tokens: int):
        """Returns the smoothed cross-entropy (nats) of a part, summed and divided by `tokens`; a tensor."""
        # Without padding there is nothing to mask, and attention without a mask is faster.
        padding = None if src.all() else self._put(src == 0)
        return self._loss(self._put(src), self._put(tgt), padding) / tokens

    def _put(self, array):
        return self._torch.from_numpy(array).to(self._device, non_blocking=True)

    def _eager_loss(self, src, tgt, padding):
        smoothing = self._config["loss"]["label_smoothing"]
        cross_entropy = self._torch.nn.functional.cross_entropy
        with self._precision:
            logits = self.model(src, tgt, padding)
            return cross_entropy(logits, tgt.flatten(), ignore_index=0, label_smoothing=smoothing, reduction="sum")

    def _rate(self):
        optim, d = self._config["optim"], self._config["model"]["d_model"]
        warmup = self._steps * max(optim["warmup_steps"], 1) ** -1.5
        return optim["lr_factor"] * d**-0.5 * min(self._steps**-0.5, warmup)
