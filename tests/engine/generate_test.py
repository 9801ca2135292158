"""Batched generation against transformers, and a sample against itself alone."""

import dataclasses

import jax
import pytest
from completions import complete, letters, one_device, place, random_prompts
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llama import TINY, tiny_llama, torch_llama

from isara_jax.engine import generate
from isara_jax.engine.batches import plan
from isara_jax.engine.decoding import Decoding
from isara_jax.runtime.mesh import make_mesh

ALL_RULES = Decoding(
    max_new_tokens=20,
    temperature=0.9,
    top_k=30,
    top_p=0.9,
    repetition_penalty=1.1,
    no_repeat_ngram=3,
)
GREEDY = Decoding(max_new_tokens=20, temperature=0.0)
# 70 tokens fall into the next bucket of prompt lengths.
PROMPTS = random_prompts(1, 5, 70, 12, 30, 3, 12, 8)


def by_id(completions):
    return {id: (c.tokens, c.finish) for id, c in completions.items()}


def assert_same(completions, others):
    """Tokens are equal; sums in fp32 may be taken in another order."""
    assert by_id(completions) == by_id(others)
    for id, completion in completions.items():
        assert completion.log_probability == pytest.approx(
            others[id].log_probability, abs=1e-4
        )


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 1.1, "no_repeat_ngram": 2},
        {"min_new_tokens": 5},
        {"length_decay_start": 3, "length_decay_factor": 1.2},
        {
            "repetition_penalty": 1.1,
            "no_repeat_ngram": 2,
            "min_new_tokens": 5,
            "length_decay_start": 5,
            "length_decay_factor": 1.1,
        },
    ],
    ids=str,
)
def test_greedy_is_that_of_transformers(rules):
    import torch

    model = tiny_llama()
    twin = torch_llama(model).eval()
    decoding = dataclasses.replace(GREEDY, **rules)
    decay = (decoding.length_decay_start, decoding.length_decay_factor)
    # What some row writes on its way, so that it ends there and others do not.
    eos = complete(model, PROMPTS, decoding=decoding)["r01-0007"].tokens[6]
    ours = complete(model, PROMPTS, decoding=decoding, eos=(eos,))
    for prompt in PROMPTS:
        tokens = torch.tensor([prompt.tokens])
        theirs = twin.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=decoding.max_new_tokens,
            eos_token_id=eos,
            pad_token_id=eos,
            repetition_penalty=decoding.repetition_penalty,
            no_repeat_ngram_size=decoding.no_repeat_ngram,
            min_new_tokens=decoding.min_new_tokens or None,
            exponential_decay_length_penalty=decay if decay[1] != 1 else None,
        )
        continuation = theirs[0, len(prompt.tokens) :].tolist()
        assert list(ours[prompt.id].tokens) == continuation
    assert {completion.finish for completion in ours.values()} == {"eos", "length"}


@pytest.fixture(scope="module")
def alone():
    """Every prompt's completion in a batch of its own."""
    return complete(tiny_llama(), PROMPTS, decoding=ALL_RULES, slots=1)


@pytest.mark.parametrize("slots", [3, 8])
def test_a_sample_does_not_depend_on_its_batch(alone, slots):
    assert len({completion.tokens for completion in alone.values()}) == len(PROMPTS)
    assert_same(complete(tiny_llama(), PROMPTS, decoding=ALL_RULES, slots=slots), alone)


def test_a_sample_does_not_depend_on_its_row(alone):
    for prompts in (PROMPTS[::-1], PROMPTS[3:] + PROMPTS[:3]):
        batch = plan(
            prompts, slots=8, row_multiple=1, max_new_tokens=20, context=TINY.context
        )[0]
        unsorted = dataclasses.replace(batch, prompts=tuple(prompts))
        assert_same(run(unsorted), alone)


def run(batch):
    completions = generate.generate_batch(
        tiny_llama(),
        batch,
        decoding=ALL_RULES,
        ending=generate.Ending(eos=(), stops=(), decode=letters),
        key=jax.random.key(7),
        mesh=one_device(),
        check=lambda: None,
    )
    return {completion.id: completion for completion in completions}


def test_a_sample_does_not_depend_on_its_companions(alone):
    two = complete(tiny_llama(), PROMPTS[4:6], decoding=ALL_RULES)
    assert_same(two, {id: alone[id] for id in two})


def test_a_longer_limit_only_adds_tokens(alone):
    longer = dataclasses.replace(ALL_RULES, max_new_tokens=50)
    for id, completion in complete(tiny_llama(), PROMPTS, decoding=longer).items():
        assert len(completion.tokens) == 50
        assert completion.tokens[:20] == alone[id].tokens


@pytest.mark.parametrize(("data", "model"), [(8, 1), (4, 2)])
def test_eight_devices_are_one(alone, data, model):
    mesh = make_mesh(data=data, model=model)
    split = place(tiny_llama(), mesh)
    assert_same(complete(split, PROMPTS, decoding=ALL_RULES, mesh=mesh), alone)


@settings(deadline=None, max_examples=12, derandomize=True)
@given(
    chosen=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=6, unique=True),
    slots=st.sampled_from([1, 2, 4]),
)
def test_a_sample_is_fixed_by_its_prompt_and_number(alone, chosen, slots):
    completions = complete(tiny_llama(), chosen, decoding=ALL_RULES, slots=slots)
    assert_same(completions, {prompt.id: alone[prompt.id] for prompt in chosen})


def test_number_and_key_decide_the_sample(alone):
    renumbered = [dataclasses.replace(p, number=p.number + 100) for p in PROMPTS]
    others = complete(tiny_llama(), renumbered, decoding=ALL_RULES)
    assert all(others[id].tokens != alone[id].tokens for id in alone)


def test_a_batch_planned_for_fewer_tokens_is_refused():
    (batch,) = plan(
        PROMPTS[:1], slots=1, row_multiple=1, max_new_tokens=20, context=TINY.context
    )
    room = batch.shape.capacity - batch.shape.prompt
    batch = dataclasses.replace(
        batch, shape=dataclasses.replace(batch.shape, capacity=batch.shape.prompt + 19)
    )
    assert room >= 20
    with pytest.raises(
        ValueError, match=r"^max_new_tokens=20: the batch was planned with room for 19$"
    ):
        run(batch)
