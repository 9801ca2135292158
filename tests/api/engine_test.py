"""Texts in, completions out."""

import jax
import jax.numpy as jnp
import pytest
from whole_rows import logits_of

import isara_jax as isara

PROMPTS = ["who sat on the mat ?", "is it true", "the dog ran far away"]
SAMPLED = isara.SamplingParams(max_new_tokens=8)


@pytest.fixture(scope="module")
def engine(model):
    return isara.Engine(model, max_slots=2)


def test_completions_come_in_the_order_of_the_prompts(engine):
    found = engine.generate(PROMPTS, SAMPLED)
    assert [completion.sample_index for completion in found] == [0, 1, 2]
    assert [completion.prompt_tokens for completion in found] == [
        len(engine.model.tokenizer.encode(prompt)) for prompt in PROMPTS
    ]
    assert all(1 <= len(completion.tokens) <= 8 for completion in found)


def test_one_text_is_a_list_of_one(engine):
    assert engine.generate(PROMPTS[0], SAMPLED) == engine.generate(PROMPTS[:1], SAMPLED)


def test_a_completion_follows_from_its_seed_and_place_alone(engine):
    first, second, third = engine.generate(PROMPTS, SAMPLED)
    others = engine.generate([PROMPTS[2], PROMPTS[1]], SAMPLED)
    assert others[1].tokens == second.tokens and others[0].tokens != third.tokens
    again = engine.generate(PROMPTS, SAMPLED, seed=7)
    assert [c.tokens for c in again] != [c.tokens for c in (first, second, third)]


def test_greedy_tokens_are_the_model_s_own(engine, model):
    greedy = isara.SamplingParams(max_new_tokens=4, temperature=0.0)
    (completion,) = engine.generate(PROMPTS[0], greedy)
    ids = model.tokenizer.encode(PROMPTS[0])
    for token in completion.tokens:
        row = jnp.asarray([ids])
        logits = logits_of(model.weights, row, jnp.ones_like(row))
        assert int(logits[0, -1].argmax()) == token
        ids.append(token)


def test_a_stop_text_is_cut_off(engine):
    (whole,) = engine.generate(PROMPTS[0], SAMPLED)
    stop = engine.model.tokenizer.decode(whole.tokens[3:4])
    (cut,) = engine.generate(PROMPTS[0], SAMPLED, stop=[stop])
    assert cut.finish_reason == "stop" and stop not in cut.text
    assert len(cut.tokens) < len(whole.tokens)


def test_a_conversation_is_written_in_the_model_s_chat_format(engine, model):
    messages = [{"role": "user", "content": "who sat ?"}]
    chatted = engine.chat([messages], SAMPLED)
    text = model.tokenizer.render_chat(messages, add_generation_prompt=True)
    assert text.endswith("<|im_start|>assistant\n")
    assert chatted == engine.generate([text], SAMPLED)


def test_a_source_is_loaded(tiny):
    engine = isara.Engine(tiny.model)
    assert engine.model.source == str(tiny.model)
    assert engine.model.mesh.devices.size == len(jax.devices())


def test_a_prompt_without_a_token_is_refused(engine):
    with pytest.raises(isara.InputError, match="the prompt 1 has 0 tokens"):
        engine.generate([PROMPTS[0], ""], SAMPLED)
