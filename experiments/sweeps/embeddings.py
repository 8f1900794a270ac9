"""Which matrices may be one, and why multiply embeddings by sqrt(d_model)?

Section 3.4 shares one matrix between both embeddings and the softmax (Press and Wolf 2017) and multiplies embeddings by
sqrt(d_model); the code of June 2017 also adds a vector for the target language to the encoder's input.

Expected: sharing saves parameters and costs nothing; with embeddings of length 1 and positions of length
sqrt(d_model / 2), a token that is not scaled up drowns in its position, until it has been learned otherwise.
"""

from experiments.registry import Sweep, Variant, register

EMBEDDINGS = register(
    Sweep(
        name="embeddings",
        base={},
        doc="Tied three ways, two ways or not; scaled by sqrt(d_model) or not; the target-space table",
        variants=(
            Variant("tied-three-ways"),
            Variant("tied-two-ways", {"model.tying": "two"}),
            Variant("untied", {"model.tying": "none"}),
            Variant("tied-three-ways/unscaled", {"model.scale_embedding": False}),
            Variant("untied/unscaled", {"model.tying": "none", "model.scale_embedding": False}),
            Variant("no-target-space", {"model.target_spaces": 0}),
        ),
    )
)
