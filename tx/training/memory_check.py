"""Memory check of a configuration: a step, a dev batch, the longest sentences translated; nothing is kept."""

import jax
import numpy as np
from ml_collections import ConfigDict

from tx.data import tokenized
from tx.data.loader import TrainBatches, eval_batches
from tx.decoding.translator import Translator
from tx.evaluation.perplexity import make_eval
from tx.evaluation.translation import split_names
from tx.runtime import distributed
from tx.runtime.memory import named_decoding, named_training
from tx.runtime.trees import stack
from tx.training.sharding import Layout, gather, make_step_over_devices
from tx.training.step import init_state


def check_memory(*configs: ConfigDict) -> None:
    """Runs a group's largest shapes; UserError, naming the sizes, where memory does not suffice."""
    data = tokenized.prepare(configs[0].data, configs[0].model.vocab_size)
    configs = [tokenized.sized(each, data) for each in configs]
    config = configs[0]
    shape = {"row_length": config.data.row_length, "batch_rows": config.data.batch_rows}
    with named_training(config):
        batches = TrainBatches(data.splits["train"], seed=config.train.seed, **shape, share=distributed.share())
        drawn = stack([next(batches) for _ in range(config.train.steps_per_dispatch)], np.stack)
        state = Layout(config).shard_state(stack([init_state(each) for each in configs]))
        state, metrics = make_step_over_devices(*configs)(state, stack([drawn] * len(configs), np.stack))
        jax.block_until_ready(metrics)
        params = gather(state.params)
        make_eval(config, eval_batches(data.splits["validation"], **shape)[:1], len(configs))(params)
    with named_decoding(config):
        splits = [data.splits[name] for name in split_names(config, data)]
        sources = [split.source(i) for split in splits for i in range(len(split))]
        longest = max(map(len, sources))
        most = max(1, config.decode.batch_tokens // longest)
        one = params if len(configs) == 1 else jax.tree.map(lambda leaf: leaf[0], params)
        Translator(config, one)(sorted(sources, key=len)[-most:])
