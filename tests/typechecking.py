"""The checker behind `--jaxtyping-packages`: beartype, where an int will do for a float as in the type system (PEP 484)."""

from beartype import BeartypeConf, beartype

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
