"""What do beam, length penalty and averaged checkpoints each add, on one trained model?

Section 6.1 decodes with a beam of 4, alpha = 0.6, both "chosen after experimentation on the development set", from the
average of the last 5 checkpoints (20 for big); rows of Table 3 are not averaged. There the five lie 1,500 steps apart
and span the last 7.5% of the training; here 5,000, a quarter of it. Nothing is
trained but the first variant: the others take its parameters.

Expected: most of the gain comes with beam 2, little after 4, and large beams want a length penalty; averaging 5
checkpoints helps, more so while the learning rate is high.
"""

from experiments.registry import Sweep, Variant, register

_AVERAGES = (1, 5, 10)


def _variant(beam, alpha, average):
    diff = {"decode.beam": beam, "decode.alpha": alpha, "decode.average_last": average}
    name = f"beam={beam}/alpha={alpha}/average={average}"
    return Variant(name, {field: value for field, value in diff.items() if value != _USUAL[field]})


_USUAL = {"decode.beam": 4, "decode.alpha": 0.6, "decode.average_last": 1}
_FIRST = (4, 0.6, 1)
_POINTS = [
    (beam, alpha, average)
    for average in _AVERAGES
    for beam in (1, 2, 4, 8, 16)
    for alpha in (0.0, 0.6, 1.0)
    if beam > 1 or alpha == 0.6  # of one hypothesis no length penalty makes another
]

DECODING = register(
    Sweep(
        name="decoding",
        base={
            "train.eval_every": 5000,
            "train.checkpoint_every": 5000,
            "train.keep_checkpoints": max(_AVERAGES),
            "train.select": "last",  # which an average of the newest ends with
        },
        doc="Beam, length penalty and checkpoints averaged, on one trained model",
        variants=tuple(_variant(*point) for point in (_FIRST, *(point for point in _POINTS if point != _FIRST))),
    )
)
