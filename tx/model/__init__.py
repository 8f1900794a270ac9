"""The Transformer and its components; pure functions of their parameters."""


def __getattr__(name):
    if name == "Transformer":
        from tx.model.transformer import Transformer  # JAX is slow to import, and not needed to plan

        return Transformer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
