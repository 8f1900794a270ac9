"""What was tried before a scale's recipe was chosen: base alone, by its dev perplexity.

Everything else of a table is compared under one recipe, so the recipe is not to be chosen by what it does to the other
rows. Trials are points of a grid around the base, for example

    python -m launch.local recipe@multi30k --grid data.batch_rows=16 --grid train.steps=6000,9000

and stand under it in the table.
"""

from experiments.registry import Sweep, Variant, register

RECIPE = register(
    Sweep(
        name="recipe",
        base={},
        doc="The recipe of a scale: base, and what was tried instead",
        variants=(Variant("base"),),
    )
)
