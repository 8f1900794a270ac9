"""Does the position-wise network need to be this one, and is it needed?

Section 3.3: two matrices with a ReLU between them, d_ff = 4 d_model: two thirds of a layer's parameters. GELU
(Hendrycks and Gimpel 2016) is what most later models use; SwiGLU (Shazeer 2020) has three matrices, here of 1360
columns for the same number of parameters.

Expected: GELU equals ReLU, SwiGLU is a little ahead; without the network most of what two thirds of the parameters can
learn is lost.
"""

from experiments.registry import Sweep, Variant, register

FEED_FORWARD = register(
    Sweep(
        name="feed_forward",
        base={},
        doc="ReLU, GELU and SwiGLU at equal parameters, and none",
        variants=(
            Variant("relu"),
            Variant("gelu", {"model.feed_forward": "gelu"}),
            Variant("swiglu", {"model.feed_forward": "swiglu", "model.d_ff": 1360}),
            Variant("none", {"model.feed_forward": "none"}),
        ),
    )
)
