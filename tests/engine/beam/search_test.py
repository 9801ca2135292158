"""Beams: what they write depends on nothing else, and they stop where they are to."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from completions import (
    EVERY_RULE,
    assert_same,
    assert_scored,
    complete,
    letters,
    one_device,
    place,
    random_prompts,
)
from counting_llama import counting_llama
from tiny_llama import TINY, tiny_llama

from isara_jax.engine.beam import search as beam
from isara_jax.engine.beam.search import search, start
from isara_jax.engine.kv_cache import layer_blocks as stack
from isara_jax.engine.kv_cache.layer_blocks import make_layer_blocks
from isara_jax.engine.padded_batch import plan
from isara_jax.engine.request import Request
from isara_jax.engine.sampling.completion import StopCriteria
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.models.llama.model import Llama
from isara_jax.runtime.mesh import make_mesh, shard_batch

PROMPTS = random_prompts(1, 5, 70, 12, 30, 3)
SEARCH = SamplingParams(max_new_tokens=20, temperature=0.0, beams=4)
SAMPLED = SamplingParams(
    max_new_tokens=12,
    temperature=0.9,
    top_k=30,
    top_p=0.9,
    beams=3,
    length_penalty=1.5,
    **EVERY_RULE,
)
sampled = functools.partial(complete, sampling_params=SAMPLED, eos=(8, 40))


@pytest.fixture(scope="module")
def alone():
    """Every prompt's completion in a batch of its own."""
    return sampled(tiny_llama(), PROMPTS, slots=1)


def test_a_sample_does_not_depend_on_its_batch(alone):
    assert {completion.finish for completion in alone.values()} == {"eos", "length"}
    assert len({completion.tokens for completion in alone.values()}) == len(PROMPTS)
    assert_same(sampled(tiny_llama(), PROMPTS[::-1]), alone)


def test_layers_in_one_block_write_the_same(alone, monkeypatch):
    monkeypatch.setattr(stack, "free_bytes", lambda: 1000)
    assert stack.block_sizes(make_layer_blocks(tiny_llama())) == (TINY.layers,)
    assert_same(sampled(tiny_llama(), PROMPTS), alone)


def test_eight_devices_are_one_and_compile_once(alone, compilations):
    mesh = make_mesh(data=4, model=2)
    split = place(tiny_llama(), mesh)
    assert_same(sampled(split, PROMPTS, mesh=mesh), alone)
    assert compilations.count("jit(start)") == 1
    assert compilations.count("jit(search)") == 1
    compilations.clear()
    changed = dataclasses.replace(SAMPLED, length_penalty=0.3, temperature=0.5)
    others = sampled(split, PROMPTS, mesh=mesh, sampling_params=changed)
    assert all(others[id].tokens != alone[id].tokens for id in alone)
    assert compilations == []


def test_number_and_key_decide_the_sample(alone):
    renumbered = [
        dataclasses.replace(p, sample_index=p.sample_index + 100) for p in PROMPTS
    ]
    others = sampled(tiny_llama(), renumbered)
    assert all(others[id].tokens != alone[id].tokens for id in alone)


def test_stretches_change_nothing(monkeypatch, alone):
    monkeypatch.setattr(beam, "STEPS_BETWEEN_SYNCS", 5)
    assert_same(sampled(tiny_llama(), PROMPTS), alone)


def test_the_log_probability_is_that_of_score(alone):
    assert_scored(tiny_llama(), PROMPTS, alone)


def count_up(*, stops=(), eos=(90,), check=lambda: None):
    """Continues 0 by 1, 2, 3 and so on up to 20, a letter each."""
    (completion,) = complete(
        counting_llama(),
        [Request(id="", sample_index=0, token_ids=(0,))],
        sampling_params=SEARCH,
        stops=stops,
        eos=eos,
        check=check,
    ).values()
    return completion


def test_a_stop_string_cuts_the_chosen_text():
    span = count_up(stops=(letters([4, 5]),))
    assert (span.text, span.tokens, span.finish) == (
        *(letters([1, 2, 3]), (1, 2, 3, 4, 5), "stop"),
    )
    assert span.log_probability == pytest.approx(5 * math.log(0.9), rel=1e-4)


def test_check_is_called_before_every_stretch_and_may_raise():
    calls = []
    assert count_up(check=lambda: calls.append(None)).tokens == tuple(range(1, 21))
    assert len(calls) == 3

    def check():
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(None)

    with pytest.raises(KeyboardInterrupt):
        count_up(check=check)


def test_the_search_ends_once_nothing_better_can_come():
    calls = []
    ended = count_up(eos=(4,), check=lambda: calls.append(None))
    assert (ended.tokens, ended.finish) == ((1, 2, 3, 4), "eos")
    assert len(calls) < 3


def test_a_batch_planned_for_fewer_tokens_is_refused():
    (batch,) = plan(
        PROMPTS[:1], slots=1, row_multiple=1, max_new_tokens=1, context=TINY.context
    )
    with pytest.raises(
        ValueError, match=r"^max_new_tokens=90: the batch was planned with room for "
    ):
        beam.beam_batch(
            make_layer_blocks(tiny_llama()),
            batch,
            sampling_params=dataclasses.replace(SEARCH, max_new_tokens=90),
            stop_criteria=StopCriteria(eos=(), stops=(), decode=letters),
            key=jax.random.key(7),
            mesh=one_device(),
            check=lambda: None,
        )


@pytest.mark.usefixtures("types_unchecked")
def test_the_cache_is_updated_in_place():
    mesh = make_mesh(data=4, model=2)
    config = dataclasses.replace(TINY, layers=8)
    deep = jax.jit(lambda key: Llama(config, key=key))(jax.random.key(0))
    prompts = (shard_batch(np.ones((8, 32), np.int32), mesh),) * 2
    split = make_layer_blocks(place(deep, mesh), mesh=mesh)
    state = start(split, *prompts, beams=3, new_tokens=500, mesh=mesh)
    loop = search.lower(
        split,
        state,
        SAMPLED.traced,
        prompts=prompts,
        keys=jax.random.split(jax.random.key(0), 8),
        eos=jnp.zeros(1, jnp.int32),
        last=jnp.int32(0),
        static=SAMPLED.static,
    )
    memory = loop.compile().memory_analysis()
    a_device = sum(array.nbytes for array in jax.tree.leaves(state.cache.pairs))
    a_device //= mesh.size
    assert memory.alias_size_in_bytes >= a_device
    assert memory.temp_size_in_bytes < a_device
