"""Continuous batching step by step: its outputs, and the prefix cache it hands on."""

import jax
import pytest
from completions import GREEDY, SHARING, letters, one_device
from tiny_llama import tiny_llama

from isara_jax.engine.continuous_batching import Generation, continuous_batching
from isara_jax.engine.kv_cache.layer_blocks import make_layer_blocks
from isara_jax.engine.prefill.prefix_cache import empty_prefix_cache
from isara_jax.engine.sampling.completion import StopCriteria
from isara_jax.engine.scheduler import plan_groups


@pytest.fixture(scope="module")
def generation():
    mesh = one_device()
    return Generation(
        layer_blocks=make_layer_blocks(tiny_llama(), mesh=mesh),
        mesh=mesh,
        sampling_params=GREEDY,
        stop_criteria=StopCriteria(eos=(), stops=(), decode=letters),
        key=jax.random.key(7),
        check=lambda: None,
        parity={},
    )


@pytest.fixture(scope="module")
def groups():
    return plan_groups(SHARING, slots=4, row_multiple=1, max_new_tokens=20, context=128)


@pytest.fixture
def prefix_cache(generation):
    return empty_prefix_cache(
        generation.layer_blocks, longest=128, mesh=generation.mesh
    )


def outputs_of(generation, group, prefix_cache):
    return list(
        continuous_batching(generation, group, prefix_cache, requests=group.planned)
    )


def test_the_slots_are_filled_before_the_first_step(generation, groups, prefix_cache):
    group, _ = groups
    outputs = outputs_of(generation, group, prefix_cache)
    is_prefill = [output.metrics.slot_steps == 0 for output in outputs]
    assert is_prefill[:5] == [True] * 4 + [False]
    assert sum(is_prefill) == len(group.planned)
    assert all(
        not output.completions
        for output, prefill in zip(outputs, is_prefill, strict=True)
        if prefill
    )


def test_every_request_has_one_completion(generation, groups, prefix_cache):
    for group in groups:
        outputs = outputs_of(generation, group, prefix_cache)
        prefix_cache = outputs[-1].prefix_cache
        ids = [c.id for output in outputs for c in output.completions]
        assert sorted(ids) == sorted(p.request.id for p in group.planned)


def test_the_last_prefix_cache_holds_the_last_prompt(generation, groups, prefix_cache):
    group, _ = groups
    last = group.planned[-1]
    cache = outputs_of(generation, group, prefix_cache)[-1].prefix_cache
    _, prefix = cache.prefill(last.request.token_ids, last.spans)
    assert (prefix.computed_tokens, prefix.reused_tokens) == (
        0,
        len(last.request.token_ids),
    )
