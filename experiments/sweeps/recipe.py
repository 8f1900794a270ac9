"""What was tried before a scale's recipe was chosen: base and big alone, by their dev perplexity.

Everything else of a table is compared under one recipe, so the recipe is not to be chosen by what it does to the other
rows, nor by how well the table then agrees with the paper's. N=8 and P_drop=0.2 stand here for the norm alone: with it
after the sub-layer, as in the paper, both are far behind at the end of a short training. big trains no longer than base
here. Trials are points of a grid around these rows, for example

    python -m launch.local recipe@multi30k --only=base,big --grid model.norm=pre,post --grid optim.lr_factor=0.7,1.0,1.4
    python -m launch.local recipe@multi30k --only=N=8,P_drop=0.2 --grid model.norm=pre,post

and stand under them in the table.
"""

from experiments.registry import Sweep, Variant, register

RECIPE = register(
    Sweep(
        name="recipe",
        base={},
        doc="The recipe of a scale: what was tried with base and big, and two rows that a norm decides",
        variants=(
            Variant("base"),
            Variant("big", {"model.d_model": 1024, "model.d_ff": 4096, "model.num_heads": 16, "model.dropout": 0.3}),
            Variant("N=8", {"model.num_layers": 8}),
            Variant("P_drop=0.2", {"model.dropout": 0.2}),
        ),
    )
)
