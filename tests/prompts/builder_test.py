"""Prompts in token ids: the demonstrations that fit, the open turn, BOS and EOS."""

from dataclasses import replace

import pytest
from tiny_generation import tiny_prompt_builder
from tiny_run import tiny_tokenizer

from isara_jax.examples import Example
from isara_jax.prompts.builder import Prompt, PromptTurn
from isara_jax.runtime.tokenizer import Tokenizer

DEMO = Example(question="is it true ?", answer="The cat sat.", origin="seed-0003")
OTHER = Example(question="Was it?", answer="It was not.", origin="seed-0001")


def make_builder(tokenizer=None, **changes):
    return tiny_prompt_builder(
        tokenizer, **{"demo_tokens": 500, "context": 512} | changes
    )


def build(builder, demos, text, *, max_new_tokens=8):
    turn = PromptTurn(id="r01-0004", sample_index=4, text=text, demos=demos)
    (prompt,) = builder.build([turn], max_new_tokens=max_new_tokens)
    return prompt


def text_of(builder, prompt):
    return builder.tokenizer.hugging_face.decode(prompt.token_ids)


def test_a_prompt_is_its_demonstrations_and_the_open_turn():
    builder = make_builder()
    text = builder.template.question_prompt()
    prompt = build(builder, [DEMO, OTHER], text)
    assert text_of(builder, prompt) == (
        builder.template.demonstration(DEMO)
        + builder.template.demonstration(OTHER)
        + text
    )
    assert (prompt.id, prompt.sample_index) == ("r01-0004", 4)
    assert prompt.demos == ("seed-0003", "seed-0001")


def test_a_zero_shot_prompt_is_the_open_turn_alone():
    builder = make_builder()
    assert builder.zero_shot("who", id="a", sample_index=2) == Prompt(
        id="a", sample_index=2, token_ids=tuple(builder.tokenizer.encode("who"))
    )


def test_demonstrations_that_do_not_fit_are_not_named():
    builder = make_builder(demo_tokens=0)
    prompt = build(builder, [DEMO], "who")
    assert prompt.demos == ()
    assert list(prompt.token_ids) == builder.tokenizer.encode("who")


class Characters:
    """A tokenizer whose tokens are characters."""

    def encode(self, text, *, add_special_tokens):
        return [ord(character) for character in text]


def within(budget, demos=(DEMO, OTHER)):
    characters = Tokenizer(hugging_face=Characters(), eos=(0,), bos=())
    builder = replace(make_builder(), tokenizer=characters, context=5000)
    prompt = build(replace(builder, demo_tokens=budget), demos, "Q")
    return list(prompt.demos)


def test_the_budget_counts_the_demonstrations_to_the_token():
    demonstration = make_builder().template.demonstration
    first = len(demonstration(DEMO))
    both = first + len(demonstration(OTHER))
    assert [len(within(n)) for n in (0, first - 1, first, both - 1, both)] == [
        *(0, 0, 1, 1, 2)
    ]


def test_nothing_follows_a_demonstration_that_was_left_out():
    long = Example(question="Why? " * 50, answer="So.", origin="seed-0002")
    assert within(200, (DEMO, long, OTHER)) == [DEMO.origin]


def test_demonstrations_leave_room_for_the_open_turn_and_what_is_to_come():
    builder = make_builder(context=300)
    text = builder.template.answer_prompt("who sat on the mat ?")
    for new_tokens in range(0, 300, 11):
        prompt = build(builder, [DEMO] * 9, text, max_new_tokens=new_tokens)
        assert text_of(builder, prompt).endswith(text)
        assert not prompt.demos or len(prompt.token_ids) + new_tokens <= builder.context
    assert prompt.demos == ()
    prompt = build(builder, [DEMO] * 9, text, max_new_tokens=1)
    one_more = len(builder.tokenizer.encode(builder.template.demonstration(DEMO)))
    assert len(prompt.token_ids) + one_more + 1 > builder.context


def test_demonstrations_are_ordered_after_those_that_do_not_fit_are_left_out():
    mat = Example(question="Where is the mat ?", answer="Here.", origin="seed-0005")
    hat = Example(question="Whose hat ?", answer="Mine.", origin="seed-0006")
    builder = make_builder(demo_order="shared")
    cost = [
        len(builder.tokenizer.encode(builder.template.demonstration(demo)))
        for demo in (DEMO, mat, hat)
    ]
    builder = replace(builder, demo_tokens=sum(cost) - 1)
    turns = [
        PromptTurn(id="a", sample_index=0, text="who", demos=[DEMO, mat, hat]),
        PromptTurn(id="b", sample_index=1, text="who", demos=[hat, mat]),
    ]
    first, second = builder.build(turns, max_new_tokens=8)
    assert first.demos == ("seed-0005", "seed-0003")
    assert second.demos == ("seed-0005", "seed-0006")


@pytest.mark.parametrize("text", ["who", "<pad>who"])
def test_a_prompt_begins_with_one_bos(text):
    plain = tiny_tokenizer()
    bos = plain.encode("<pad>")
    tokenizer = Tokenizer(hugging_face=plain.hugging_face, eos=(2,), bos=tuple(bos))
    prompt = make_builder(tokenizer).zero_shot(text)
    assert list(prompt.token_ids) == bos + plain.encode("who")


@pytest.mark.parametrize(("template", "lead"), [("paper", ""), ("paper_spaced", " ")])
def test_an_answer_ends_with_eos(template, lead):
    plain = tiny_tokenizer()
    tokenizer = Tokenizer(hugging_face=plain.hugging_face, eos=(2, 9), bos=())
    ids = make_builder(tokenizer, template=template).completion_ids("The cat sat.")
    assert list(ids) == [*plain.encode(f"{lead}The cat sat."), 2]
