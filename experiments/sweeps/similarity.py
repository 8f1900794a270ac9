"""Is the scaling by sqrt(d_k) needed, and is q.k more than a cosine?

Section 3.2.1: "for large values of d_k, the dot products grow large in magnitude, pushing the softmax function into
regions where it has extremely small gradients"; for small ones additive and dot-product attention "perform similarly",
for large ones "additive attention outperforms dot product attention without scaling". The cosine with a learned
temperature is QK norm (Henry et al. 2020).

Expected: at small d_k no difference; at large d_k unscaled products have logits of a variance near d_k and a softmax of
low entropy, and learn worst; additive, scaled and cosine stay together.
"""

from experiments.registry import Sweep, Variant, register

_WIDTHS = (16, 64, 256)

SIMILARITY = register(
    Sweep(
        name="similarity",
        base={"probe.attention": True},
        measures=("logit variance", "entropy"),
        doc="Scaled, unscaled, additive and cosine similarity at several d_k",
        variants=(
            Variant("scaled/d_k=64"),
            *(
                Variant(f"{name}/d_k={d_k}", {"model.similarity": name, "model.d_k": d_k})
                for d_k in _WIDTHS
                for name in ("scaled", "unscaled", "additive", "cosine")
                if (name, d_k) != ("scaled", 64)
            ),
        ),
    )
)
