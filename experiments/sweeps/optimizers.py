"""Is it Adam that trains a Transformer, or would another optimizer do as well?

Section 5.3 takes Adam with beta2 = 0.98 and epsilon = 1e-9, and says nothing of others. AdamW (Loshchilov and Hutter
2019) lets matrices decay, Adafactor (Shazeer and Stern 2018) keeps less than Adam, Lion (Chen et al. 2023) the signs
alone, Muon (Jordan et al. 2024) makes the updates of hidden matrices orthogonal; SGD has one rate for all parameters.

A rate that suits one means nothing to another, so the sweep is read under --tune alone, with a grid in decades around
the scale's own factor, for example

    python -m launch.local optimizers@smoke --tune optim.lr_factor=0.006,0.06,0.6,6,60 --seeds=3

Expected: SGD falls behind, Muon comes out ahead at a fixed number of steps, and the others are Adam's equals.
"""

from experiments.registry import Sweep, Variant, register

_OTHERS = ("adamw", "lion", "adafactor", "sgd", "muon")
# Optax factors from 128 on, and at the small scales no matrix is as large.
_FACTORED = {"adafactor": {"optim.adafactor.min_dim_size_to_factor": 32}}

OPTIMIZERS = register(
    Sweep(
        name="optimizers",
        base={},
        doc="Adam and other optimizers, each at a rate of its own: to be read under --tune optim.lr_factor=... alone",
        variants=(
            Variant("adam"),
            Variant("adam/clip=1", {"optim.clip_norm": 1.0}),
            *(Variant(name, {"optim.optimizer": name} | _FACTORED.get(name, {})) for name in _OTHERS),
        ),
    )
)
