"""What `--jaxtyping-packages` checks with: beartype, where an int will do for a float, as in PEP 484."""

from beartype import BeartypeConf, beartype

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
