"""The type checker of the import hook."""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

checked = beartype(
    conf=BeartypeConf(
        # An int where a float is due is right, as it is for mypy.
        is_pep484_tower=True,
        # The hook shows a method without its class, so Self has no meaning there.
        hint_overrides=FrozenDict({Self: Any}),
    )
)
