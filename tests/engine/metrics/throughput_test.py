"""What is counted, and the rates that follow."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isara_jax.engine.metrics.roofline import Cost, ModelSizes
from isara_jax.engine.metrics.throughput import (
    EngineMetrics,
    StepMetrics,
    Timing,
    decode_metrics,
    timed,
)
from isara_jax.runtime.hardware.peak_rates import PeakRates

RATES = PeakRates(bytes_per_second=100.0, flops_per_second=1000.0)
SIZES = ModelSizes(body=10, head=5, itemsize=2, position_bytes=3, pair=7, window=None)


INSTANT = Timing(seconds=0.0, compilations=0, compile_seconds=0.0)


def count(metrics, *new):
    lengths = np.full(len(new), 4)
    step = decode_metrics(
        np.array(new), INSTANT, lengths=lengths, shared_len=0, sizes=SIZES
    )
    metrics.add(step)


def test_rates_follow_from_the_counts():
    metrics = EngineMetrics(
        computed_tokens=30, reused_tokens=10, prefill_seconds=2.0, decode_seconds=4.0
    )
    count(metrics, 8, 0, 2)
    count(metrics, 1, 0, 1)
    record = metrics.record(RATES)
    assert (record["new_tokens"], record["slot_steps"]) == (12, 24 + 3)
    assert record["prefill_tokens_per_second"] == 15
    assert record["decode_tokens_per_second"] == 3
    assert record["slot_occupancy"] == pytest.approx(12 / 27)
    assert record["prefix_hit_rate"] == 0.25


def test_nothing_done_is_no_rate():
    record = EngineMetrics().record(RATES)
    assert record["decode_tokens_per_second"] is None
    assert record["prefix_hit_rate"] is None
    assert record["decode_share_of_bound"] is None


def test_a_share_is_what_the_machine_needs_by_what_it_took():
    metrics = EngineMetrics(prefill_seconds=2.0, decode_seconds=4.0)
    # Bound by memory: 0.5 s; by products: 0.4 s.
    metrics.prefill_costs += [Cost(bytes=50, flops=1), Cost(bytes=1, flops=400)]
    metrics.decode_costs += [Cost(bytes=100, flops=1000)]
    record = metrics.record(RATES)
    assert record["prefill_share_of_bound"] == pytest.approx(0.9 / 2)
    assert record["decode_share_of_bound"] == pytest.approx(1 / 4)
    assert record["machine_bytes_per_second"] == 100
    assert record["machine_flops_per_second"] == 1000


def test_a_record_is_written_as_json():
    metrics = EngineMetrics(decode_seconds=4.0)
    count(metrics, 1, 2)
    assert json.loads(json.dumps(metrics.record(RATES)))["new_tokens"] == 3


def test_steps_add_up():
    metrics = EngineMetrics()
    step = StepMetrics(computed_tokens=3, prefill_costs=(Cost(bytes=1, flops=2),))
    for _ in range(2):
        metrics.add(step)
    assert metrics == EngineMetrics(
        computed_tokens=6, prefill_costs=2 * [Cost(bytes=1, flops=2)]
    )


def test_compilations_are_counted_apart():
    new = jax.jit(lambda x: x @ x + 17.25)

    def run():
        return new(jnp.ones((3, 3))).block_until_ready()

    timings = [timed(run)[1] for _ in range(3)]
    assert timings[0].compilations >= 1 and timings[0].compile_seconds > 0
    assert timings[2].compilations == 0
    assert timings[2].seconds > 0
