"""The type checker of the tests: beartype, configured to accept an int as a float, as mypy does."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
