"""What do Add and Norm each do, and what has the warm-up to do with it?

Section 3.1 puts LayerNorm(x + Sublayer(x)) around every sub-layer and does not say why. With the norm before the
sub-layer a Transformer trains without warm-up, and after it hardly (Xiong et al. 2020); RMS norm leaves out the mean
(Zhang and Sennrich 2019).

Expected: pre-norm is indifferent to the warm-up and post-norm needs it; RMS equals layer norm; without residuals, or
without both, hardly anything is learned at this depth; without norm training is slow or diverges. Divergence is a
result.
"""

from experiments.registry import Sweep, Variant, register

_KINDS = {
    "post": {},
    "pre": {"model.norm": "pre"},
    "post-rms": {"model.normalization": "rms"},
    "pre-rms": {"model.norm": "pre", "model.normalization": "rms"},
    "norm without residual": {"model.residual": False},
    "residual without norm": {"model.norm": "none"},
    "neither": {"model.residual": False, "model.norm": "none"},
}

ADD_NORM = register(
    Sweep(
        name="add_norm",
        base={"model.norm": "post"},  # which the recipe of a small scale may have otherwise
        doc="Residual and norm, each without the other, with and without warm-up",
        variants=tuple(
            Variant(name.replace(" ", "-") + suffix, diff | more)
            for suffix, more in (("", {}), ("/no-warmup", {"optim.linear_warmup": False}))
            for name, diff in _KINDS.items()
        ),
    )
)
