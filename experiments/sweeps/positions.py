"""How is a position best told, and what happens beyond the lengths that were trained on?

Section 3.5 says that sinusoids "may allow the model to extrapolate to sequence lengths longer than the ones encountered
during training" and that learned vectors do as well (row E); later papers tell attention the offset of two positions
instead: Shaw et al. 2018 with a vector for each, T5 (Raffel et al. 2020) with a number for each bucket of them, ALiBi
(Press et al. 2022) with a slope, rotary encodings (Su et al. 2021) by turning queries and keys. Learned vectors start
as large as embeddings, or, unscaled, smaller by sqrt(d_model): the code had both (tx/model/positions.py).

Expected: all but `none` lie close together within the trained lengths, `none` a little behind (the decoder still counts
by its causal mask, and cross-attention loses its place); beyond them learned positions fail, and offsets hold best.
"""

from experiments.registry import Sweep, Variant, register

POSITIONS = register(
    Sweep(
        name="positions",
        base={"data.max_length_quantile": 0.7},
        measures=("exact % within", "exact % beyond", "BLEU within", "BLEU beyond"),
        doc="How a position is told, within the trained lengths and beyond",
        variants=(
            Variant("sinusoidal"),
            Variant("learned", {"model.positions": "learned"}),
            Variant("learned/unscaled", {"model.positions": "learned", "model.scale_positions": False}),
            *(Variant(name, {"model.positions": name}) for name in ("none", "relative", "t5", "alibi", "rotary")),
        ),
    )
)
