"""This host as a machine: CPU devices share its memory and its rates."""

import jax
import pytest

from isara_jax.fit.machines import machine as module
from isara_jax.fit.machines.machine import this_host


@pytest.fixture
def rates(monkeypatch):
    found = type("Rates", (), {"flops_per_second": 8e9, "bytes_per_second": 16e9})
    monkeypatch.setattr(module, "device_peak_rates", lambda dtype: found)


@pytest.mark.usefixtures("rates")
def test_cpu_devices_are_one_processor(monkeypatch):
    monkeypatch.setattr(module, "free_bytes", lambda: 800)
    machine = this_host("float32")
    devices = len(jax.devices())
    assert list(machine.devices) == jax.devices()
    assert machine.memory == 800 // devices
    assert machine.flops == 8e9 / devices
    assert machine.bandwidth == 16e9 / devices
    assert machine.interconnect is None


@pytest.mark.usefixtures("rates")
def test_memory_that_is_unknown_stays_so(monkeypatch):
    monkeypatch.setattr(module, "free_bytes", lambda: None)
    assert this_host("float32").memory is None
