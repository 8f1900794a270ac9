"""Why self-attention rather than recurrence or convolution?

Section 4 and Table 1 compare layers by arithmetic, by operations that must follow one another, and by the longest path
between two positions. Here each of them mixes the positions of encoder and decoder in the same Transformer; what they
cost by themselves is measured by `python -m experiments table1`.

Expected: at scale `recall`, where a value has to be remembered, each reaches as far as the N layers of the decoder take
it and no further: self-attention and recurrence any distance, a neighbourhood N r, a kernel N (k - 1), a dilated one
(k - 1)(1 + k + ... + k^(N-1)). On text: near equal on sentences as short as a corpus of captions has; a recurrence
learns fast, a small neighbourhood or kernel falls behind where a sentence needs what lies far away.
"""

from experiments.registry import Sweep, Variant, register
from tx.data.synthetic import recall

TABLE1 = register(
    Sweep(
        name="table1",
        base={},
        measures=tuple(f"{distance} back" for distance in recall.DISTANCES),
        doc='Table 1 of "Attention Is All You Need": what mixes the positions of a sentence',
        variants=(
            Variant("self-attention"),
            Variant("self-attention/r=16", {"model.mixer": "local", "model.neighbourhood": 16}),
            Variant("self-attention/r=4", {"model.mixer": "local", "model.neighbourhood": 4}),
            Variant("recurrent", {"model.mixer": "recurrent"}),
            Variant("convolution/k=3", {"model.mixer": "convolution"}),
            Variant("dilated/k=3", {"model.mixer": "dilated"}),
        ),
    )
)
