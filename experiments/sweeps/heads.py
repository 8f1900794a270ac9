"""Do many heads make up for averaged attention, and must each have keys and values of its own?

Section 3.2: many heads counteract the "reduced effective resolution due to averaging attention-weighted positions"; row
A of Table 3 varies their number at constant cost, and finds one head 0.9 BLEU worse, and too many worse as well. Heads
that share keys and values (all of them: Shazeer 2019; in groups: Ainslie et al. 2023) make decoding cheaper.

Expected: h = 1 worst and a flat optimum, as in row A; one key for all heads a little worse, groups next to nothing.
"""

from experiments.registry import Sweep, Variant, register


def _heads(h):
    return {"model.num_heads": h, "model.d_k": 512 // h, "model.d_v": 512 // h}


HEADS = register(
    Sweep(
        name="heads",
        base={"probe.attention": True},
        measures=("entropy", "distance"),
        doc="The number of heads at constant cost, and heads that share keys and values",
        variants=(
            Variant("h=8"),
            *(Variant(f"h={h}", _heads(h)) for h in (1, 2, 4, 16, 32)),
            *(Variant(f"h=8/kv={kv}", {"model.num_kv_heads": kv}) for kv in (1, 2, 4)),
        ),
    )
)
