"""What decoding is compiled to: how often, and with what memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from completions import SAMPLED, complete, place, random_prompts
from tiny_llama import TINY

from isara_jax.engine.decode.state import empty_state
from isara_jax.engine.decode.step import decode
from isara_jax.engine.kv_cache.layer_blocks import make_layer_blocks
from isara_jax.engine.prefill.chunking import CPU_WIDTHS
from isara_jax.models.llama.model import Llama
from isara_jax.runtime.mesh import make_mesh


@pytest.mark.parametrize(("data", "model"), [(1, 1), (4, 2)])
def test_each_loop_is_compiled_once(compilations, data, model):
    mesh = make_mesh(data=data, model=model)
    # A depth and a number of rows that no other test has compiled for.
    config = dataclasses.replace(TINY, layers=3)
    split = place(Llama(config, key=jax.random.key(0)), mesh)
    run = functools.partial(complete, split, mesh=mesh, slots=16)
    run(random_prompts(*range(1, 17)), sampling_params=SAMPLED)
    # Of the chunks' widths these prompts take one.
    for program in ("jit(prefill_chunk)", "jit(_insert)", "jit(decode)"):
        assert compilations.count(program) == 1, program
    compilations.clear()
    run(random_prompts(*range(10, 26)), sampling_params=SAMPLED)
    for field in ("temperature", "top_p", "repetition_penalty"):
        changed = dataclasses.replace(SAMPLED, **{field: 0.7})
        run(random_prompts(*range(1, 17)), sampling_params=changed)
    assert compilations == []


def test_a_second_round_of_long_and_short_prompts_compiles_nothing(compilations):
    config = dataclasses.replace(TINY, context=4096, layers=1)
    model = Llama(config, key=jax.random.key(0))
    lengths = np.random.default_rng(0)
    first, second = (lengths.integers(20, 2001, 30).tolist() for _ in range(2))
    run = functools.partial(complete, model, sampling_params=SAMPLED, slots=4)
    run(random_prompts(20, 2000, *first))
    assert compilations.count("jit(prefill_chunk)") <= len(CPU_WIDTHS.sizes)
    compilations.clear()
    run(random_prompts(20, 2000, *second))
    assert compilations == []


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(("data", "model"), [(1, 1), (4, 2)])
def test_the_cache_is_updated_in_place(data, model):
    mesh = make_mesh(data=data, model=model)
    config = dataclasses.replace(TINY, layers=8)
    deep = jax.jit(lambda key: Llama(config, key=key))(jax.random.key(0))
    split = place(deep, mesh)
    layer_blocks = make_layer_blocks(split)
    state = empty_state(
        layer_blocks, rows=8, max_len=2016, max_shared_len=0, new_tokens=20, mesh=mesh
    )
    loop = decode.lower(
        layer_blocks,
        state,
        SAMPLED.traced,
        eos=jnp.zeros(1, jnp.int32),
        static=SAMPLED.static,
        steps=jnp.int32(8),
        mesh=mesh,
    )
    memory = loop.compile().memory_analysis()
    cached = jax.tree.leaves((state.cache.keys, state.cache.values))
    a_device = sum(array.nbytes for array in cached) // (data * model)
    assert memory.alias_size_in_bytes >= a_device
    assert memory.temp_size_in_bytes < a_device // 2
