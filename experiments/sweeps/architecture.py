"""Is an encoder needed, or does one stack over source and target do?

A decoder-only model reads the source as a prefix: source sees all of itself, target sees the source and what is earlier
of itself (a prefix language model: Raffel et al. 2020, section 3.2; of translation, Gao et al. 2022, "Is
Encoder-Decoder Redundant for Neural Machine Translation?").

An encoder and a decoder of N layers have three attentions to two feed-forward networks. So 2N layers with half as many
heads again (12) have the same parameters, and, as each token passes all of them, nearly twice the FLOPs; N such layers
have the same FLOPs, and half the parameters beside the embedding. Of matrices both hold exactly, at every scale; what
grows with the square of the length is not counted.

Expected: at equal parameters no difference; at equal FLOPs the encoder-decoder is ahead.
"""

from experiments.registry import Sweep, Variant, register

_ONE_STACK = {"model.architecture": "decoder_only", "model.num_heads": 12}

ARCHITECTURE = register(
    Sweep(
        name="architecture",
        base={},
        doc="An encoder and a decoder, or one stack over source and target",
        variants=(
            Variant("encoder-decoder"),
            Variant("decoder-only/parameters", _ONE_STACK | {"model.num_layers": 12}),
            Variant("decoder-only/FLOPs", _ONE_STACK),
        ),
    )
)
