"""A setting of the runtime that breaks its rule is named with it."""

import pytest

from isara_jax.errors import InputError
from isara_jax.runtime.config import ModelSource, RuntimeConfig


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("mesh_model", 0, "must be at least 1"),
        ("mesh_data", 0, "must be -1 or at least 1"),
        ("mesh_data", -2, "must be -1 or at least 1"),
        ("seed", -1, "must be from 0 to 2^32 - 1"),
        ("seed", 2**32, "must be from 0 to 2^32 - 1"),
    ],
)
def test_a_bad_value_is_named(field, value, rule):
    with pytest.raises(InputError) as caught:
        RuntimeConfig(**{field: value})
    assert str(caught.value) == f"{field}={value}: {rule}"


def test_the_ends_of_the_ranges_are_let_pass():
    config = RuntimeConfig(seed=2**32 - 1, mesh_data=-1, mesh_model=1)
    assert config.seed == 2**32 - 1


def test_a_command_needs_a_model():
    with pytest.raises(InputError, match=r"^model: must be given$"):
        ModelSource()
    assert ModelSource(model="m").adapter == ""
