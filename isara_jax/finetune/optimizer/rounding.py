"""Stochastic rounding to bf16, which does not lose small updates."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Float32, Key


def round_stochastically(
    value: Float32[Array, "*shape"], key: Key[Array, ""]
) -> BFloat16[Array, "*shape"]:
    """Rounds to one of the two neighbours in bf16, more likely to the nearer one.

    The expectation is the value itself. So updates below half of bf16's spacing add up
    over the steps, whereas rounding to nearest would drop every one of them.
    """
    noise = jax.random.bits(key, value.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(value, jnp.uint32) + noise
    kept = jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32)
    # Inf and NaN have no neighbours.
    return jnp.where(jnp.isfinite(value), kept, value).astype(jnp.bfloat16)


def round_tree(tree: Any, like: Any, key: Key[Array, ""]) -> Any:
    """Rounds fp32 arrays to the dtypes of `like`, to bf16 stochastically."""
    leaves, structure = jax.tree.flatten(tree)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(like)]
    rounded = [
        round_stochastically(leaf, jax.random.fold_in(key, number))
        if dtype == jnp.bfloat16
        else leaf
        for number, (leaf, dtype) in enumerate(zip(leaves, dtypes, strict=True))
    ]
    return jax.tree.unflatten(structure, rounded)
