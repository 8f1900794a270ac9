"""tx: a laboratory for Transformer ablations in JAX/Flax."""

from tx import streams

streams.quiet_while_importing()
