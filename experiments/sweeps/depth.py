"""Must the decoder be as deep as the encoder?

A decoder works token by token, so its layers are what translation waits for; an encoder's are computed at once. Kasai
et al. 2021 ("Deep Encoder, Shallow Decoder") move layers from one to the other: 12 and 1 translate as well as 6 and 6,
and faster, while 6 and 1 lose. Rows are named by the layers of encoder and decoder. A shallow decoder has two layers
here rather than one, so that scales which halve the depth have one.

Expected: 12-2 equals 6-6, of nearly as many parameters; 6-2, which has lost layers and got none for them, falls behind;
the mirror image 2-12 falls behind 12-2.
"""

from experiments.registry import Sweep, Variant, register

DEPTH = register(
    Sweep(
        name="depth",
        base={},
        doc="Layers of the encoder and of the decoder: deep and shallow ones",
        variants=(
            Variant("6-6"),
            *(
                Variant(f"{encoder}-{decoder}", {"model.num_layers": encoder, "model.decoder_layers": decoder})
                for encoder, decoder in ((12, 2), (6, 2), (2, 12))
            ),
        ),
    )
)
