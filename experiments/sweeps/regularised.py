"""The base with the dropout that small corpora want, and the time that it takes: what published scores compare with.

On 29,000 sentence pairs (Multi30k) P_drop 0.1 overfits before 0.3 has learned. A text-only Transformer of 2.6 million
parameters with dropout 0.3, trained for up to 8,000 updates of 4,096 tokens on each of two devices, is reported at 41.0
BLEU on test_2016_flickr, of lower-case tokens, from the average of ten checkpoints with a beam of 5 (Wu et al. 2021,
"Good for Misconceived Reasons: An Empirical Revisiting on the Need for Visual Context in Multimodal Machine
Translation", and the scripts published with it). So the base is also translated from an average, of the five
checkpoints that a run keeps: nothing is trained for that.
"""

from experiments.registry import Sweep, Variant, register

REGULARISED = register(
    Sweep(
        name="regularised",
        base={"model.dropout": 0.3, "train.steps": 400_000},
        doc="The base with dropout 0.3, trained four times as long, for corpora where 0.1 overfits",
        variants=(Variant("base"), Variant("average=5", {"decode.average_last": 5})),
    )
)
