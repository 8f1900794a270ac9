"""The checker of annotations that tests/conftest.py puts on every function of `tx`."""

from beartype import BeartypeConf, beartype

# A whole number is a float, as annotations have it (PEP 484).
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
