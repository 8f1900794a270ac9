"""Does another loss of a token than the smoothed cross-entropy help?

Section 5.4 minimises the cross-entropy with smoothed labels. PaLM (Chowdhery et al. 2022, section 5) adds 1e-4 log^2 Z,
so that the softmax's normaliser stays near 1; the focal loss (Lin et al. 2017) takes weight from what is nearly right,
(1 - p)^gamma of it. Perplexity is of the true labels in every row.

Expected: a z-loss of PaLM's weight changes nothing here, where logits do not run away; focal losses leave probabilities
flatter, and perplexity the higher for it, while the beam finds the same translations.
"""

from experiments.registry import Sweep, Variant, register

LOSSES = register(
    Sweep(
        name="losses",
        base={},
        doc="The loss of a token: smoothed cross-entropy, with log^2 Z, focal",
        variants=(
            Variant("base"),
            Variant("z_loss/1e-4", {"loss.name": "z_loss"}),
            Variant("z_loss/1e-2", {"loss.name": "z_loss", "loss.z_loss.coefficient": 1e-2}),
            Variant("focal/gamma=1", {"loss.name": "focal", "loss.focal.gamma": 1.0}),
            Variant("focal/gamma=2", {"loss.name": "focal"}),
        ),
    )
)
