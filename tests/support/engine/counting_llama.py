"""A LLaMA that counts: after token i, whatever came before, it wants token i + 1."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from tiny_llama import TINY

from isara_jax.models.llama.model import Llama

CONFIG = dataclasses.replace(
    TINY, width=128, layers=1, tied_head=False, norm_epsilon=0.0
)
# Of the next number, and so of every token of a greedy continuation.
PROBABILITY = 0.9


@functools.cache
def counting_llama():
    model = Llama(CONFIG, key=jax.random.key(0))
    layers = jax.tree.map(jnp.zeros_like, model.layers)  # add nothing to the stream
    numbers = jnp.eye(CONFIG.vocab_size, CONFIG.width)
    odds = PROBABILITY / (1 - PROBABILITY) * (CONFIG.vocab_size - 1)
    scale = math.log(odds) / math.sqrt(CONFIG.width)  # the norm's of a unit vector
    model.layers = layers
    model.embedding = model.embedding.replace(numbers)
    model.head = model.head.replace(scale * jnp.roll(numbers, 1, axis=0))
    return model
