"""Slices padded beyond what a kernel sees, where a mask says what is there."""

from jaxtyping import Array, Int


def hidden_zero(number: Int[Array, ""]) -> Int[Array, ""]:
    """Returns 0, where a padded slice begins, in a way that JAX does not know when it traces a kernel.

    It refuses a slice whose beginning it knows and that reaches beyond the array, mask or not.

    Args:
      number: one that it does not know: of the program, or of a turn of its loop.
    """
    return number * 0  # and so a GPU's compiler has it
