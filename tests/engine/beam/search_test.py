"""Beams: what they write depends on nothing else, and they stop where they are to."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest
from completions import (
    EVERY_RULE,
    SHARING,
    assert_same,
    assert_scored,
    complete,
    letters,
    place,
    random_prompts,
)
from counting_llama import counting_llama
from tiny_llama import TINY, tiny_llama

from isara_jax.engine import continuous_batching
from isara_jax.engine.beam.search import search
from isara_jax.engine.beam.state import empty_beams
from isara_jax.engine.kv_cache import layer_blocks as stack
from isara_jax.engine.kv_cache.layer_blocks import make_layer_blocks
from isara_jax.engine.metrics.throughput import EngineMetrics
from isara_jax.engine.request import Request
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.models.llama.model import Llama
from isara_jax.runtime.mesh import make_mesh

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
    assert {completion.finish_reason for completion in alone.values()} == {
        "eos",
        "length",
    }
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
    assert compilations.count("jit(empty_beams)") == 1
    assert compilations.count("jit(_insert)") == 1
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
    monkeypatch.setattr(continuous_batching, "STEPS_BETWEEN_SYNCS", 5)
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
    assert (span.text, span.tokens, span.finish_reason) == (
        *(letters([1, 2, 3]), (1, 2, 3, 4, 5), "stop"),
    )
    assert span.log_probability == pytest.approx(5 * math.log(0.9), rel=1e-4)


def test_check_is_called_before_every_stretch_and_may_raise():
    calls = []
    assert count_up(check=lambda: calls.append(None)).tokens == tuple(range(1, 21))
    # Before the prompt, and before 8, 8 and 4 tokens.
    assert len(calls) == 4

    def check():
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(None)

    with pytest.raises(KeyboardInterrupt):
        count_up(check=check)


def test_the_search_ends_once_nothing_better_can_come():
    calls = []
    ended = count_up(eos=(4,), check=lambda: calls.append(None))
    assert (ended.tokens, ended.finish_reason) == ((1, 2, 3, 4), "eos")
    assert len(calls) < 3


@pytest.mark.usefixtures("types_unchecked")
def test_the_cache_is_updated_in_place():
    mesh = make_mesh(data=4, model=2)
    config = dataclasses.replace(TINY, layers=8)
    deep = jax.jit(lambda key: Llama(config, key=key))(jax.random.key(0))
    split = make_layer_blocks(place(deep, mesh), mesh=mesh)
    state = empty_beams(
        split,
        rows=8,
        max_len=64,
        max_shared_len=0,
        beams=3,
        new_tokens=500,
        mesh=mesh,
    )
    loop = search.lower(
        split,
        state,
        SAMPLED.traced,
        eos=jnp.zeros(1, jnp.int32),
        static=SAMPLED.static,
        steps=jnp.int32(8),
        mesh=mesh,
    )
    memory = loop.compile().memory_analysis()
    cached = jax.tree.leaves((state.cache.blocks, state.branches.blocks))
    a_device = sum(array.nbytes for array in cached) // mesh.size
    assert memory.alias_size_in_bytes >= a_device
    assert memory.temp_size_in_bytes < a_device // 2


def test_what_beams_share_is_computed_once_and_counted():
    metrics = EngineMetrics()
    found = complete(
        tiny_llama(),
        SHARING,
        sampling_params=SAMPLED,
        eos=(8, 40),
        slots=4,
        metrics=metrics,
    )
    given = sum(len(request.token_ids) for request in SHARING)
    prefixes = 2 * 70
    own = sum(len(ids[70:]) for ids in {request.token_ids for request in SHARING})
    assert metrics.computed_tokens == prefixes + own
    assert metrics.computed_tokens + metrics.reused_tokens == given
    assert 0 < metrics.new_tokens <= metrics.slot_steps
    assert metrics.new_tokens >= SAMPLED.beams * sum(
        len(completion.tokens) for completion in found.values()
    )
    assert metrics.prefill_seconds > 0 < metrics.decode_seconds
    alone = {}
    for request in SHARING[::5]:
        alone |= sampled(tiny_llama(), [request])
    assert_same({id: found[id] for id in alone}, alone)


def test_prompts_that_end_early_leave_their_slots_to_others():
    """Each prompt's beams end with its own limit, and the next prompt takes over."""
    limits = [3, 12, 4, 12, 5, 2]
    requests = [
        dataclasses.replace(request, max_new_tokens=limit)
        for request, limit in zip(PROMPTS, limits, strict=True)
    ]
    metrics = EngineMetrics()
    found = sampled(tiny_llama(), requests, slots=2, metrics=metrics)
    # As long as the longest three times over is what batches of two would take.
    assert metrics.slot_steps < SAMPLED.beams * 2 * 3 * max(limits)
    for request in requests:
        assert_same(
            {request.id: found[request.id]}, sampled(tiny_llama(), [request], slots=1)
        )
