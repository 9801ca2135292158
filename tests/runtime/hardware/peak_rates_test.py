"""What the machine can do: measured quickly, once, and used as a bound."""

import time

import jax
import pytest

from isara_jax.runtime.hardware import peak_rates as machine
from isara_jax.runtime.hardware.peak_rates import (
    PeakRates,
    device_peak_rates,
    mesh_peak_rates,
)

pytestmark = pytest.mark.optimized

RATES = PeakRates(bytes_per_second=100.0, flops_per_second=1000.0)


def test_the_slower_of_memory_and_products_is_the_bound():
    assert RATES.bound(bytes=200, flops=1000) == 2
    assert RATES.bound(bytes=200, flops=3000) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_machine_is_measured_quickly_and_once(dtype):
    device_peak_rates.cache_clear()
    begun = time.process_time()
    rates = device_peak_rates(dtype)
    # Of both cores; 0.4 s are measured, the rest is compilation.
    assert time.process_time() - begun < 10
    # Far below and above what any machine does.
    assert 1e8 < rates.bytes_per_second < 1e14
    assert 1e8 < rates.flops_per_second < 1e17
    assert device_peak_rates(dtype) is rates


def test_a_rate_counts_what_was_done(monkeypatch):
    monkeypatch.setattr(machine, "_calls_per_second", lambda _: 10.0)
    monkeypatch.setattr(machine, "SIZES", {"cpu": (1 << 20, 64)})
    device_peak_rates.cache_clear()
    rates = device_peak_rates("float32")
    device_peak_rates.cache_clear()
    assert rates.bytes_per_second == 10 * (1 << 20)
    assert rates.flops_per_second == 10 * 2 * 64**3


def test_elsewhere_a_copy_reads_and_writes(monkeypatch):
    monkeypatch.setattr(machine, "_calls_per_second", lambda _: 10.0)
    monkeypatch.setattr(machine, "ACCELERATOR_SIZES", (1 << 20, 64))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    device_peak_rates.cache_clear()
    rates = device_peak_rates("float32")
    device_peak_rates.cache_clear()
    assert rates.bytes_per_second == 2 * 10 * (1 << 20)


def test_many_devices_do_as_much_more_but_fake_ones_do_not(monkeypatch):
    monkeypatch.setattr(machine, "device_peak_rates", lambda _: RATES)
    assert mesh_peak_rates("float32", devices=4) == RATES
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert mesh_peak_rates("float32", devices=4) == PeakRates(
        bytes_per_second=400.0, flops_per_second=4000.0
    )
