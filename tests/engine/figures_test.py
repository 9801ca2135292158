"""What is counted, and the rates that follow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isara_jax.engine.figures import Figures


def test_rates_follow_from_the_counts():
    figures = Figures(
        run_tokens=30, reused_tokens=10, prefill_seconds=2.0, decode_seconds=4.0
    )
    figures.count_new(np.array([8, 0, 2]))
    figures.count_new(np.array([1, 0, 1]))
    record = figures.record()
    assert (record["new_tokens"], record["slot_steps"]) == (12, 24 + 3)
    assert record["prefill_tokens_per_second"] == 15
    assert record["decode_tokens_per_second"] == 3
    assert record["slot_occupancy"] == pytest.approx(12 / 27)
    assert record["prefix_hit_rate"] == 0.25


def test_nothing_done_is_no_rate():
    record = Figures().record()
    assert record["decode_tokens_per_second"] is None
    assert record["prefix_hit_rate"] is None


def test_compilations_are_counted_apart():
    figures = Figures()
    new = jax.jit(lambda x: x @ x + 17.25)
    for _ in range(2):
        with figures.decoding():
            new(jnp.ones((3, 3))).block_until_ready()
    assert figures.compilations >= 1 and figures.compile_seconds > 0
    counted = figures.compilations
    with figures.decoding():
        new(jnp.ones((3, 3))).block_until_ready()
    assert figures.compilations == counted
    assert figures.decode_seconds > 0
