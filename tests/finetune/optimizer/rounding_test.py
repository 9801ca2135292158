"""Stochastic rounding: one of two neighbours, right on average."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isara_jax.finetune.optimizer.rounding import round_stochastically, round_tree


@pytest.mark.parametrize("value", [1.001, -3.3, 1e-30, 123456.0])
def test_the_mean_is_the_value(value):
    rounded = round_stochastically(
        jnp.full(20_000, value, jnp.float32), jax.random.key(0)
    )
    found = np.unique(np.asarray(rounded, np.float64))
    assert len(found) == 2
    assert found[0] < value < found[1]
    spacing = found[1] - found[0]
    assert np.mean(np.asarray(rounded, np.float64)) == pytest.approx(
        value, abs=0.02 * spacing
    )


def test_what_bf16_has_stays_what_it_is():
    exact = jnp.array([0.0, 1.0, -2.5, jnp.inf, -jnp.inf, jnp.nan], jnp.float32)
    rounded = round_stochastically(exact, jax.random.key(0))
    np.testing.assert_array_equal(rounded.astype(jnp.float32), exact)


def test_small_updates_add_up():
    @jax.jit
    def grown(start):
        def step(value, number):
            wide = value.astype(jnp.float32) + 1e-4  # bf16's spacing there: 8e-3
            key = jax.random.fold_in(jax.random.key(1), number)
            return round_stochastically(wide, key), None

        return jax.lax.scan(step, start, jnp.arange(1000))[0]

    end = grown(jnp.ones(1000, jnp.bfloat16)).astype(jnp.float32)
    assert float(jnp.mean(end)) == pytest.approx(1.1, abs=0.005)


def test_only_what_is_to_be_bf16_is_rounded_each_by_its_own_noise():
    tree = {name: jnp.full(64, 1.001, jnp.float32) for name in "abc"}
    like = {"a": jnp.zeros(64), "b": jnp.zeros(64, jnp.bfloat16)}
    like["c"] = like["b"]
    rounded = round_tree(tree, like, jax.random.key(0))
    assert rounded["a"] is tree["a"]
    assert rounded["b"].dtype == jnp.bfloat16
    assert jnp.any(rounded["b"] != rounded["c"])
