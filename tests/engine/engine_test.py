"""A sample in slots against itself alone: neither slot, batch nor order decides it."""

import dataclasses

import pytest
from completions import (
    GREEDY,
    PROMPTS,
    SAMPLED,
    SHARING,
    assert_same,
    complete,
    place,
    random_prompts,
)
from hypothesis import given, settings, strategies as st
from tiny_llama import tiny_llama

from isara_jax.engine.metrics.throughput import EngineMetrics
from isara_jax.errors import InputError
from isara_jax.runtime.mesh import make_mesh

pytestmark = pytest.mark.optimized


@pytest.fixture(scope="module")
def alone():
    """Every prompt's completion in a batch of its own."""
    return complete(tiny_llama(), PROMPTS, sampling_params=SAMPLED, slots=1)


@pytest.mark.parametrize("slots", [3, 8])
def test_a_sample_does_not_depend_on_its_batch(alone, slots):
    assert len({completion.tokens for completion in alone.values()}) == len(PROMPTS)
    assert_same(
        complete(tiny_llama(), PROMPTS, sampling_params=SAMPLED, slots=slots), alone
    )


@pytest.fixture(scope="module")
def each_alone():
    """What is written for each prompt where there is no other."""
    found = {}
    for prompt in [*PROMPTS, *SHARING]:
        found |= complete(tiny_llama(), [prompt], sampling_params=SAMPLED)
    return found


@pytest.mark.parametrize("slots", [1, 2, 5, 32])
def test_neither_slot_nor_refill_nor_order_decides_a_sample(each_alone, slots):
    prompts = [*PROMPTS, *SHARING]
    for order in (prompts, prompts[::-1], prompts[::2] + prompts[1::2]):
        found = complete(tiny_llama(), order, sampling_params=SAMPLED, slots=slots)
        assert_same(found, each_alone)


@pytest.mark.parametrize("slots", [2, 5])
def test_what_is_left_of_a_step_is_written_as_it_would_have_been(slots):
    prompts = [*PROMPTS, *SHARING]
    whole = complete(tiny_llama(), prompts, sampling_params=SAMPLED, slots=slots)
    done = {prompt.id for prompt in prompts[::3]}
    rest = complete(
        tiny_llama(), prompts, sampling_params=SAMPLED, slots=slots, done=done
    )
    assert rest == {id: whole[id] for id in whole if id not in done}


def test_what_is_shared_is_run_once():
    metrics = EngineMetrics()
    complete(tiny_llama(), SHARING, sampling_params=GREEDY, slots=4, metrics=metrics)
    given = sum(len(prompt.token_ids) for prompt in SHARING)
    shared = 2 * 70
    own = sum(len(tokens[70:]) for tokens in {prompt.token_ids for prompt in SHARING})
    assert metrics.computed_tokens == shared + own
    assert metrics.computed_tokens + metrics.reused_tokens == given
    assert metrics.new_tokens == 20 * len(SHARING)
    assert metrics.new_tokens <= metrics.slot_steps


def test_many_samples_of_one_prompt_run_it_once():
    one = PROMPTS[4]
    prompts = [dataclasses.replace(one, id=str(n), sample_index=n) for n in range(9)]
    metrics = EngineMetrics()
    found = complete(
        tiny_llama(), prompts, sampling_params=SAMPLED, slots=4, metrics=metrics
    )
    assert metrics.computed_tokens == len(one.token_ids)
    assert len({completion.tokens for completion in found.values()}) == 9


def test_a_prompt_may_ask_for_fewer_tokens(alone):
    fewer = [
        dataclasses.replace(prompt, max_new_tokens=3 + 2 * number)
        for number, prompt in enumerate(PROMPTS)
    ]
    found = complete(tiny_llama(), fewer, sampling_params=SAMPLED, slots=3)
    for prompt in fewer:
        count = min(prompt.max_new_tokens, SAMPLED.max_new_tokens)
        assert found[prompt.id].tokens == alone[prompt.id].tokens[:count]
        assert found[prompt.id].finish_reason == "length"


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths():
    prompts = [*PROMPTS[:2], *random_prompts(109)]
    with pytest.raises(
        InputError,
        match=r"^the prompt r01-0000 has 109 tokens; with 20 new ones .* of 128$",
    ):
        complete(tiny_llama(), prompts, sampling_params=SAMPLED)


def test_a_stop_is_asked_about_between_steps():
    calls = []
    complete(
        tiny_llama(),
        PROMPTS,
        sampling_params=GREEDY,
        slots=2,
        check=lambda: calls.append(1),
    )
    assert len(calls) > len(PROMPTS) + 20 // 8

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete(tiny_llama(), PROMPTS, sampling_params=GREEDY, check=stop)


def test_a_sample_does_not_depend_on_its_companions(alone):
    two = complete(tiny_llama(), PROMPTS[4:6], sampling_params=SAMPLED)
    assert_same(two, {id: alone[id] for id in two})


def test_a_longer_limit_only_adds_tokens(alone):
    longer = dataclasses.replace(SAMPLED, max_new_tokens=50)
    for id, completion in complete(
        tiny_llama(), PROMPTS, sampling_params=longer
    ).items():
        assert len(completion.tokens) == 50
        assert completion.tokens[:20] == alone[id].tokens


@pytest.mark.parametrize(("data", "model"), [(8, 1), (4, 2)])
def test_eight_devices_are_one(alone, data, model):
    mesh = make_mesh(data=data, model=model)
    split = place(tiny_llama(), mesh)
    assert_same(complete(split, PROMPTS, sampling_params=SAMPLED, mesh=mesh), alone)


@settings(deadline=None, max_examples=12, derandomize=True)
@given(
    chosen=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=6, unique=True),
    slots=st.sampled_from([1, 2, 4]),
)
def test_a_sample_is_fixed_by_its_prompt_and_number(alone, chosen, slots):
    completions = complete(tiny_llama(), chosen, sampling_params=SAMPLED, slots=slots)
    assert_same(completions, {prompt.id: alone[prompt.id] for prompt in chosen})


def test_number_and_key_decide_the_sample(alone):
    renumbered = [
        dataclasses.replace(p, sample_index=p.sample_index + 100) for p in PROMPTS
    ]
    others = complete(tiny_llama(), renumbered, sampling_params=SAMPLED)
    assert all(others[id].tokens != alone[id].tokens for id in alone)


@pytest.mark.parametrize("beams", [2, 5])
def test_beams_take_a_slot_each(beams):
    sampling_params = dataclasses.replace(GREEDY, beams=beams)
    prompts, metrics = PROMPTS[:5], EngineMetrics()
    whole = complete(
        tiny_llama(), prompts, sampling_params=sampling_params, slots=2, metrics=metrics
    )
    # Two prompts at once, the third time one.
    assert metrics.new_tokens == beams * 5 * 20
    assert metrics.slot_steps == beams * 6 * 20
    done = {prompts[0].id}
    rest = complete(
        tiny_llama(), prompts, sampling_params=sampling_params, slots=2, done=done
    )
    assert rest == {id: whole[id] for id in whole if id not in done}


def test_a_beam_s_prompt_may_ask_for_fewer_tokens():
    beams = dataclasses.replace(GREEDY, beams=3, max_new_tokens=12)
    limits = (5, 12, 5, 40)
    found = complete(
        tiny_llama(),
        [
            dataclasses.replace(prompt, max_new_tokens=limit)
            for prompt, limit in zip(PROMPTS[:4], limits, strict=True)
        ],
        sampling_params=beams,
    )
    short = dataclasses.replace(beams, max_new_tokens=5)
    wanted = {
        **complete(tiny_llama(), PROMPTS[1:4:2], sampling_params=beams),
        **complete(tiny_llama(), PROMPTS[0:3:2], sampling_params=short),
    }
    assert_same(found, wanted)
