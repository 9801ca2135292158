"""The type checker of the import hook."""

from beartype import BeartypeConf, beartype

# An int where a float is due is right, as it is for mypy.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
