"""Models of random weights, which have the speed of real ones and need no files."""

import dataclasses

import jax
import jax.numpy as jnp

from isara_jax.fit import MODEL_SHAPES as PUBLISHED
from isara_jax.models.llama import Llama

LLAMA_7B = PUBLISHED["llama-7b"]
# For a look at whether everything runs, on any machine.
TINY = dataclasses.replace(
    LLAMA_7B,
    vocab_size=512,
    width=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_size=16,
    feed_forward=128,
)
SHAPES = {"llama7b": LLAMA_7B, "tiny": TINY}


def random_llama(shape: str, *, dtype: str) -> Llama:
    """Makes a LLaMA of a shape of the table, on JAX's first device."""
    build = jax.jit(lambda key: Llama(SHAPES[shape], key=key, dtype=jnp.dtype(dtype)))
    return build(jax.random.key(0))
