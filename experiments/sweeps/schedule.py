"""Why this formula for the learning rate, and these constants of Adam?

Section 5.3 gives lr = d_model^-0.5 min(step^-0.5, step warmup_steps^-1.5), beta2 = 0.98 and epsilon = 1e-9, without
saying what else was tried. Warm-up and factor are in proportion to the scale's recipe.

Expected: warm-up and peak matter within a factor of four, the form of the decay little; cosine, which ends at 0, comes
out ahead at a fixed number of steps; without d_model in it the formula suits one width only.
"""

from experiments.registry import Sweep, Variant, register

_NO_WIDTH = "the base itself at the paper's d_model, and factor=0.5 at a quarter of it"

SCHEDULE = register(
    Sweep(
        name="schedule",
        base={},
        doc="The learning rate: warm-up, height, form; and Adam's constants",
        variants=(
            Variant("base"),
            Variant("warmup=1000", {"optim.warmup_steps": 1000}),
            Variant("warmup=16000", {"optim.warmup_steps": 16000}),
            Variant("no-ramp", {"optim.linear_warmup": False}),
            Variant("factor=0.5", {"optim.lr_factor": 0.5}),
            Variant("factor=2", {"optim.lr_factor": 2.0}),
            Variant("constant", {"optim.schedule": "constant"}),
            Variant("cosine", {"optim.schedule": "cosine"}),
            Variant("no-width", {"optim.scale_by_width": False}, note=_NO_WIDTH),
            Variant("beta2=0.9", {"optim.beta2": 0.9}),
            Variant("beta2=0.999", {"optim.beta2": 0.999}),
            Variant("epsilon=1e-6", {"optim.epsilon": 1e-6}),
        ),
    )
)
