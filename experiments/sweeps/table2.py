"""How well do base and big translate newstest2014, English to German and English to French?

Table 2: trained as in Table 3, but the parameters that translate are the mean of the last checkpoints, 5 of base and 20
of big, which section 6.1 says were written every ten minutes: after 1,500 steps of base at 0.4 s, 600 of big at 1 s.
English to French is the scale's pair (`table2@paper.en-fr`); there big has a dropout of 0.1. Its 32,000 word-pieces are
not set here: how many a vocabulary has is the scale's.

Expected: big is ahead of base, by more in French.
"""

from experiments.registry import PaperRow, Sweep, Variant, register
from experiments.sweeps.table3 import BIG

_NOTE = "the paper prints {} FLOPs: time x GPUs x 9.5 TFLOP/s, no count of operations"


def _averaged(last: int, every: int) -> dict[str, int]:
    return {"decode.average_last": last, "train.keep_checkpoints": last, "train.checkpoint_every": every}


_BIG = {**BIG, **_averaged(20, 600)}

TABLE2 = register(
    Sweep(
        name="table2",
        base={**_averaged(5, 1500), "train.select": "last", "decode.splits": "test"},
        doc='Table 2 of "Attention Is All You Need": base and big on newstest2014, checkpoints averaged',
        variants=(
            Variant(
                "base",
                paper=PaperRow(bleu=27.3),
                note=f"base: {_NOTE.format('3.3e18')}",
                pairs={"en-fr": Variant("base", paper=PaperRow(bleu=38.1))},
            ),
            Variant(
                "big",
                _BIG,
                PaperRow(bleu=28.4),
                note=f"big: {_NOTE.format('2.3e19')}",
                pairs={
                    "en-fr": Variant(
                        "big",
                        {**_BIG, "model.dropout": 0.1},
                        PaperRow(bleu=41.8),
                        note="big: Table 2 prints 41.8, the text of the paper 41.0",
                    )
                },
            ),
        ),
    )
)
