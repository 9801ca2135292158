"""Generation in slots against transformers, and a sample against itself alone."""

import dataclasses
import functools

import jax
import pytest
from completions import complete, place, random_prompts
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llama import TINY, tiny_llama, torch_llama

from isara_jax.engine import continuous, group_run, narrowing, stack, stream
from isara_jax.engine.beam import beam_batch
from isara_jax.engine.decoding import Decoding
from isara_jax.engine.figures import Figures
from isara_jax.engine.schedule import groups
from isara_jax.errors import InputError
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
FIFTY = random_prompts(1, 5, 70, 12, 30, 3, 12, 8, *range(2, 107, 5), *range(40, 61))


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

    assert len(FIFTY) == 50
    model = tiny_llama()
    twin = torch_llama(model).eval()
    decoding = dataclasses.replace(GREEDY, max_new_tokens=12, **rules)
    decay = (decoding.length_decay_start, decoding.length_decay_factor)
    # What some row writes on its way, so that it ends there and others do not.
    eos = complete(model, FIFTY, decoding=decoding)["r01-0007"].tokens[6]
    ours = complete(model, FIFTY, decoding=decoding, eos=(eos,))
    for prompt in FIFTY:
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


# Two families of prompts with a beginning of their own, of 64 tokens or more.
SHARING = [
    dataclasses.replace(
        prompt,
        tokens=tuple(beginning % 97 for beginning in range(first, first + 70))
        + prompt.tokens[:12],
        number=100 + 10 * first + prompt.number,
        id=f"{first}-{prompt.id}",
    )
    for first in (3, 50)
    for prompt in PROMPTS
]


@pytest.mark.parametrize("slots", [1, 2, 5, 32])
def test_neither_slot_nor_refill_nor_order_decides_a_sample(slots):
    prompts = [*PROMPTS, *SHARING]
    wanted = {}
    for prompt in prompts:
        wanted |= complete(tiny_llama(), [prompt], decoding=ALL_RULES)
    for order in (prompts, prompts[::-1], prompts[::2] + prompts[1::2]):
        found = complete(tiny_llama(), order, decoding=ALL_RULES, slots=slots)
        assert_same(found, wanted)


@pytest.mark.parametrize("slots", [2, 5])
def test_what_is_left_of_a_step_is_written_as_it_would_have_been(slots):
    prompts = [*PROMPTS, *SHARING]
    whole = complete(tiny_llama(), prompts, decoding=ALL_RULES, slots=slots)
    done = {prompt.id for prompt in prompts[::3]}
    rest = complete(tiny_llama(), prompts, decoding=ALL_RULES, slots=slots, done=done)
    assert rest == {id: whole[id] for id in whole if id not in done}


def test_the_last_texts_are_written_to_the_bit_in_fewer_rows(monkeypatch):
    prompts = [
        dataclasses.replace(
            prompt, new_tokens=20 if number % 9 == 0 else number % 7 + 1
        )
        for number, prompt in enumerate(FIFTY)
    ]
    run = functools.partial(complete, tiny_llama(), prompts, decoding=ALL_RULES)
    figures = Figures()
    found = run(slots=32, figures=figures)
    monkeypatch.setattr(narrowing, "LEAST_NARROW", 100)
    wide = Figures()
    assert run(slots=32, figures=wide) == found
    assert figures.slot_steps < wide.slot_steps


@pytest.mark.parametrize("place", ["empty_state", "decode"])
def test_a_group_that_memory_has_no_room_for_goes_on_in_fewer_slots(
    monkeypatch, capsys, place
):
    wanted = complete(tiny_llama(), PROMPTS, decoding=ALL_RULES)
    program, calls = getattr(group_run, place), []

    def failing(*arguments, **named):
        rows = named["rows"] if "rows" in named else arguments[1].done.shape[0]
        calls.append(rows)
        if rows > 2 and (place == "empty_state" or len(calls) > 3):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return program(*arguments, **named)

    monkeypatch.setattr(group_run, place, failing)
    found = complete(tiny_llama(), PROMPTS, decoding=ALL_RULES, slots=5)
    assert_same(found, wanted)
    assert calls[0] == 5 and calls[-1] == 2
    assert "memory has no room for 5 slots: going on with 2" in capsys.readouterr().err


def test_memory_for_no_slot_at_all_is_told(monkeypatch):
    def failing(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(group_run, "decode", failing)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        complete(tiny_llama(), PROMPTS, decoding=GREEDY, slots=4)


def test_what_is_shared_is_run_once():
    figures = Figures()
    complete(tiny_llama(), SHARING, decoding=GREEDY, slots=4, figures=figures)
    given = sum(len(prompt.tokens) for prompt in SHARING)
    beginnings = 2 * 70
    own = sum(len(tokens[70:]) for tokens in {prompt.tokens for prompt in SHARING})
    assert figures.run_tokens == beginnings + own
    assert figures.run_tokens + figures.reused_tokens == given
    assert figures.new_tokens == 20 * len(SHARING)
    assert figures.new_tokens <= figures.slot_steps


def test_many_samples_of_one_prompt_run_it_once():
    one = PROMPTS[4]
    prompts = [dataclasses.replace(one, id=str(n), number=n) for n in range(9)]
    figures = Figures()
    found = complete(
        tiny_llama(), prompts, decoding=ALL_RULES, slots=4, figures=figures
    )
    assert figures.run_tokens == len(one.tokens)
    assert len({completion.tokens for completion in found.values()}) == 9


def test_a_prompt_may_ask_for_fewer_tokens(alone):
    fewer = [
        dataclasses.replace(prompt, new_tokens=3 + 2 * number)
        for number, prompt in enumerate(PROMPTS)
    ]
    found = complete(tiny_llama(), fewer, decoding=ALL_RULES, slots=3)
    for prompt in fewer:
        count = min(prompt.new_tokens, ALL_RULES.max_new_tokens)
        assert found[prompt.id].tokens == alone[prompt.id].tokens[:count]
        assert found[prompt.id].finish == "length"


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths():
    prompts = [*PROMPTS[:2], *random_prompts(109)]
    with pytest.raises(
        InputError,
        match=r"^the prompt r01-0000 has 109 tokens; with 20 new ones .* of 128$",
    ):
        complete(tiny_llama(), prompts, decoding=ALL_RULES)


def test_a_stop_is_asked_about_between_stretches():
    calls = []
    complete(
        tiny_llama(), PROMPTS, decoding=GREEDY, slots=2, check=lambda: calls.append(1)
    )
    assert len(calls) > len(PROMPTS) + 20 // 8

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete(tiny_llama(), PROMPTS, decoding=GREEDY, check=stop)


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


@pytest.mark.parametrize(("beams", "rows"), [(2, [2, 2, 1]), (5, [2, 2, 1])])
def test_beams_have_their_own_decoder_and_take_a_slot_each(monkeypatch, beams, rows):
    batches = []

    def noted(model, batch, **rest):
        batches.append(len(batch.prompts))
        return beam_batch(model, batch, **rest)

    monkeypatch.setattr(stream, "beam_batch", noted)
    decoding = dataclasses.replace(GREEDY, beams=beams)
    prompts = PROMPTS[:5]
    whole = complete(tiny_llama(), prompts, decoding=decoding, slots=2)
    assert batches == rows and len(whole) == 5
    done = {prompts[0].id}
    rest = complete(tiny_llama(), prompts, decoding=decoding, slots=2, done=done)
    assert rest == {id: whole[id] for id in whole if id not in done}


def test_a_beam_s_prompt_may_ask_for_fewer_tokens():
    beams = dataclasses.replace(GREEDY, beams=3, max_new_tokens=12)
    limits = (5, 12, 5, 40)
    found = complete(
        tiny_llama(),
        [
            dataclasses.replace(prompt, new_tokens=limit)
            for prompt, limit in zip(PROMPTS[:4], limits, strict=True)
        ],
        decoding=beams,
    )
    short = dataclasses.replace(beams, max_new_tokens=5)
    wanted = {
        **complete(tiny_llama(), PROMPTS[1:4:2], decoding=beams),
        **complete(tiny_llama(), PROMPTS[0:3:2], decoding=short),
    }
    assert_same(found, wanted)


@pytest.mark.parametrize(("rows", "slots"), [(0.2, 1), (3.5, 3), (50, 8)])
def test_memory_decides_how_many_slots_there_are(
    alone, monkeypatch, capfd, rows, slots
):
    config = TINY
    longest = max(len(prompt.tokens) for prompt in PROMPTS)
    position = 2 * config.layers * config.kv_heads * config.head_size * 4
    (group,) = groups(
        PROMPTS, slots=8, row_multiple=1, max_new_tokens=20, context=config.context
    )
    row = position * group.capacity + 20 * config.vocab_size
    whole = position * (group.capacity + longest)
    free = (whole + rows * row) / continuous.SHARE_OF_MEMORY
    monkeypatch.setattr(continuous, "free_bytes", lambda: int(free) + 1)
    figures = Figures()
    found = complete(tiny_llama(), PROMPTS, decoding=ALL_RULES, figures=figures)
    assert_same(found, alone)
    said = f"memory has room for {slots} slots, not 8" in capfd.readouterr().err
    assert said == (slots < 8)
    # Every slot writes 20 tokens a prompt, so its steps tell how many slots there were.
    assert figures.slot_steps == -(-8 // slots) * slots * 20


def test_layers_that_memory_cannot_hold_twice_stay_in_one_block(alone, monkeypatch):
    monkeypatch.setattr(stack, "free_bytes", lambda: 1000)
    assert len(stack.stacked(tiny_llama()).blocks) == 1
    assert_same(complete(tiny_llama(), PROMPTS, decoding=ALL_RULES), alone)


def test_groups_of_several_sizes_are_no_lack_of_memory(capfd):
    prompts = [*SHARING, *PROMPTS[:3]]
    planned = groups(
        prompts, slots=8, row_multiple=1, max_new_tokens=20, context=TINY.context
    )
    assert len({group.rows for group in planned}) > 1
    complete(tiny_llama(), prompts, decoding=GREEDY, slots=8)
    assert "memory" not in capfd.readouterr().err
