"""What the two loops are compiled to: how often, and with what memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from completions import complete, place, random_prompts
from tiny_llama import TINY, tiny_llama

from isara_jax.engine.batches import Shape
from isara_jax.engine.decoding import Decoding
from isara_jax.engine.loops import decode, start
from isara_jax.models.llama import Llama
from isara_jax.runtime.mesh import make_mesh, place_batch

RULES = Decoding(
    max_new_tokens=20,
    temperature=0.9,
    top_k=30,
    top_p=0.9,
    repetition_penalty=1.1,
    no_repeat_ngram=3,
)


def test_padding_is_not_seen():
    tokens = jnp.array([[0, 0, 5, 7], [9, 0, 9, 9], [0, 0, 0, 96]])
    segments = jnp.array([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]])
    shape = Shape(rows=3, prompt=4, capacity=6)
    mesh = make_mesh(data=1, model=1)
    state = start(tiny_llama(), tokens, segments, shape=shape, mesh=mesh)
    rows = [np.flatnonzero(row).tolist() for row in state.seen]
    assert rows == [[5, 7], [0, 9], [96]]
    assert state.history[:, 4:].tolist() == [[0, 0]] * 3
    assert state.cache.segments[:, :4].tolist() == segments.tolist()


@pytest.mark.parametrize(("data", "model"), [(1, 1), (4, 2)])
def test_each_loop_is_compiled_once(compilations, data, model):
    mesh = make_mesh(data=data, model=model)
    split = place(tiny_llama(seed=1), mesh)
    # A number of rows that no other test has compiled for.
    run = functools.partial(complete, split, mesh=mesh, slots=16)
    run(random_prompts(*range(1, 17)), decoding=RULES)
    assert compilations.count("jit(start)") == 1
    assert compilations.count("jit(decode)") == 1
    compilations.clear()
    run(random_prompts(*range(21, 37)), decoding=RULES)
    for field in ("temperature", "top_p", "repetition_penalty"):
        changed = dataclasses.replace(RULES, **{field: 0.7})
        run(random_prompts(*range(1, 17)), decoding=changed)
    shorter = dataclasses.replace(RULES, max_new_tokens=19)
    run(random_prompts(*range(1, 17)), decoding=shorter)
    assert compilations == []


@pytest.fixture
def _types_unchecked():
    """JAX describes a lowered program's arguments as values of our types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_types_unchecked")
@pytest.mark.parametrize(("data", "model"), [(1, 1), (4, 2)])
def test_the_cache_is_updated_in_place(data, model):
    mesh = make_mesh(data=data, model=model)
    config = dataclasses.replace(TINY, layers=8)
    deep = jax.jit(lambda key: Llama(config, key=key))(jax.random.key(0))
    split = place(deep, mesh)
    shape = Shape(rows=8, prompt=32, capacity=2016)
    tokens = place_batch(np.ones((shape.rows, shape.prompt), np.int32), mesh)
    state = start(split, tokens, tokens, shape=shape, mesh=mesh)
    loop = decode.lower(
        split,
        state,
        RULES.strengths,
        keys=jax.random.split(jax.random.key(0), shape.rows),
        eos=jnp.zeros(1, jnp.int32),
        first_slot=jnp.int32(0),
        last_slot=jnp.int32(0),
        form=RULES.form,
    )
    memory = loop.compile().memory_analysis()
    a_device = (state.cache.keys.nbytes + state.cache.values.nbytes) // (data * model)
    assert memory.alias_size_in_bytes >= a_device
    assert memory.temp_size_in_bytes < a_device
