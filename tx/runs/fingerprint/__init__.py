"""Fingerprint of the code that a run's results depend on."""

from tx.runs.fingerprint.code import APART, ENTRIES, Code
from tx.runs.fingerprint.current import covered, numerics

__all__ = ["APART", "ENTRIES", "Code", "covered", "numerics"]
