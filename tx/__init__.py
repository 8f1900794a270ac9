"""tx: a laboratory for Transformer ablations in JAX/Flax."""
