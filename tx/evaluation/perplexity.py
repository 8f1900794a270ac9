"""Dev perplexity of trained models, with the source and without it."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from tx.data import tokenized
from tx.data.packing import Batch, eval_batches
from tx.runs.selection import Selected
from tx.training.step import make_eval, stack


def dev_batches(config: ConfigDict, data: tokenized.PreparedData) -> list[Batch]:
    """Returns the packed sentences that dev perplexity is of."""
    return eval_batches(data.splits["validation"], row_length=config.data.row_length, batch_rows=config.data.batch_rows)


def measure_dev(config: ConfigDict, data: tokenized.PreparedData, params: Sequence[dict]) -> list[dict]:
    """Returns {"nll", "ppl", "tokens", "nll_without_source"} of dev for each of some models of one shape.

    The last is the loss of what is left where the encoder's output is zero: of a model of the target language.
    """
    evaluate = make_eval(config, dev_batches(config, data), len(params))
    joined = stack(params)
    both = zip(evaluate(joined), evaluate(joined, source=0.0), strict=True)
    return [dev | {"nll_without_source": without["nll"]} for dev, without in both]


def described_dev(selected: Selected, dev: dict) -> dict:
    """Returns what result.json says as "dev": what was measured, of which parameters."""
    return {"split": "validation", **dev, "step": selected.step, "parameters": selected.name}
