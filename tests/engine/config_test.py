"""How many slots the engine has where nobody says."""

import pytest

from isara_jax.engine.config import EngineConfig
from isara_jax.engine.scheduler import useful_slots
from isara_jax.errors import InputError


def test_the_platform_decides_where_nothing_is_given():
    assert EngineConfig().slots == useful_slots() == 32
    assert EngineConfig(max_slots=5).slots == 5


def test_fewer_than_none_are_refused():
    with pytest.raises(InputError, match=r"^max_slots=-1: must be 0 or more$"):
        EngineConfig(max_slots=-1)
