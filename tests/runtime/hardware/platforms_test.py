"""A command on a CPU machine with libtpu installed is quiet, and others are let be."""

import jax
import pytest

from isara_jax.runtime.hardware import platforms
from isara_jax.runtime.hardware.platforms import skip_absent_tpus


@pytest.fixture
def chosen(monkeypatch, tmp_path):
    """Returns what is chosen with these chips, packages and library."""

    def look(*, chip="", packages=("jax",), library=True, environment=None):
        updates = {}
        monkeypatch.setattr(jax.config, "update", updates.__setitem__)
        spec = object() if library else None
        monkeypatch.setattr(platforms, "find_spec", lambda name: spec)
        monkeypatch.delenv("JAX_PLATFORMS", raising=False)
        if environment is not None:
            monkeypatch.setenv("JAX_PLATFORMS", environment)
        if chip:
            (tmp_path / chip).parent.mkdir(exist_ok=True)
            (tmp_path / chip).touch()
        skip_absent_tpus(devices=tmp_path, installed=lambda: set(packages))
        return updates.get("jax_platforms")

    return look


def test_a_cpu_machine_that_can_compile_for_tpus_looks_for_none(chosen):
    assert chosen() == "cpu"


@pytest.mark.parametrize("chip", ["accel0", "vfio/0"])
def test_a_tpu_is_found(chosen, chip):
    assert chosen(chip=chip) is None


@pytest.mark.parametrize("plugin", ["jax-cuda13-plugin", "jax-rocm7-plugin"])
def test_a_gpu_is_found(chosen, plugin):
    assert chosen(packages=("jax", plugin)) is None


def test_the_environment_is_heard(chosen):
    assert chosen(environment="tpu") is None


def test_without_the_library_nothing_is_chosen(chosen):
    assert chosen(library=False) is None
