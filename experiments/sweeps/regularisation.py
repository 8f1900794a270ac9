"""Which dropout does the work, and over which classes is a label smoothed?

Section 5.4 drops each sub-layer's output and the sum of embedding and position, with one rate, and smooths labels by
0.1; later code drops attention weights and activations as well. The code of June 2017 spreads the 0.1 over the other
V - 1 classes, Szegedy et al. (2016) over all V.

Expected: the residual's dropout does most; over which classes a label is smoothed cannot be told; smoothing "hurts
perplexity, ... but improves accuracy and BLEU score".
"""

from experiments.registry import Sweep, Variant, register

_NONE = {"model.dropout": 0.0}

REGULARISATION = register(
    Sweep(
        name="regularisation",
        base={},
        doc="Dropout in one place at a time, and label smoothing",
        variants=(
            Variant("base"),
            Variant("dropout/none", _NONE),
            Variant("dropout/residual", {"model.drop_embedding": False}),
            Variant("dropout/embedding", {"model.drop_residual": False}),
            Variant("dropout/attention", _NONE | {"model.attention_dropout": 0.1}),
            Variant("dropout/activation", _NONE | {"model.relu_dropout": 0.1}),
            Variant("smoothing/all", {"loss.smooth_over": "all"}),
            Variant("smoothing/none", {"loss.label_smoothing": 0.0}),
        ),
    )
)
