"""What tests/conftest.py promises to every other test."""

import warnings

import jax
import jaxtyping
import pytest

from isara_jax.examples import Pool


def test_there_are_eight_devices():
    assert [device.platform for device in jax.devices()] == ["cpu"] * 8


def test_types_of_the_package_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError, match="Type-check error"):
        Pool(round_index="one", examples=())


def test_a_warning_is_an_error():
    with pytest.raises(UserWarning, match="careful"):
        warnings.warn("careful", stacklevel=1)


def test_files_that_are_not_marked_otherwise_are_compiled_quickly():
    assert jax.config.read("jax_disable_most_optimizations")
