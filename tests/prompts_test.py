"""The templates to the letter, and the token budget of the demonstrations."""

import pytest
from pretrained import SMOLLM2, needs_smollm2
from tiny_run import tiny_tokenizer

from isara_jax.errors import InputError
from isara_jax.examples import Example
from isara_jax.models.checkpoints.open import open_model
from isara_jax.prompts import assemble, fitting, make_template
from isara_jax.runtime.sources import locate

DEMO = Example(question="Is it?", answer="It is.", origin="seed-0000")
OTHER = Example(question="Was it?", answer="It was not.", origin="seed-0001")


def no_chat(turns, *, open_answer):
    raise AssertionError("a plain template renders no chat")


PAPER = make_template("paper", render=no_chat)


def test_the_paper_s_demonstration():
    assert PAPER.demonstration(DEMO) == (
        "BEGINNING OF CONVERSATION: USER: Is it? ASSISTANT: It is. "
        "END OF CONVERSATION\n\n"
    )


def test_the_paper_s_open_turns_end_without_a_space():
    assert PAPER.open_question() == "BEGINNING OF CONVERSATION: USER:"
    assert PAPER.open_answer("Is it?") == (
        "BEGINNING OF CONVERSATION: USER: Is it? ASSISTANT:"
    )


def test_the_paper_s_conversation_goes_on_as_a_prompt_with_demonstrations_does():
    assert PAPER.next_answer([DEMO, OTHER], "Will it be?") == (
        PAPER.demonstration(DEMO)
        + PAPER.demonstration(OTHER)
        + PAPER.open_answer("Will it be?")
    )
    assert PAPER.next_answer([], "Is it?") == PAPER.open_answer("Is it?")


def test_the_paper_puts_no_space_before_a_trained_answer_and_paper_spaced_does():
    assert PAPER.closing("It is.") == "It is."
    spaced = make_template("paper_spaced", render=no_chat)
    assert spaced.closing("It is.") == " It is."
    assert spaced.open_answer("Is it?") == PAPER.open_answer("Is it?")


def test_what_is_trained_in_the_spaced_template_continues_as_a_demonstration_does():
    spaced = make_template("paper_spaced", render=no_chat)
    trained = spaced.open_answer(DEMO.question) + spaced.closing(DEMO.answer)
    assert spaced.demonstration(DEMO).startswith(trained)


def test_the_paper_s_stop_strings():
    assert PAPER.stops == (
        *("BEGIN", "END", "USER", "ASSISTANT", "ASSISTENT"),
        *("\\begin", "\\end", "ANS"),
    )


@pytest.fixture(scope="module")
def smollm2():
    return open_model(locate(SMOLLM2)).tokenizer


@needs_smollm2
def test_the_chat_format_of_the_real_model(smollm2):
    chat = make_template("chat", render=smollm2.render_chat)
    assert chat.open_question() == "<|im_start|>user\n"
    assert chat.open_answer("Is it?") == (
        "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.demonstration(DEMO) == (
        "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\nIt is.<|im_end|>\n"
    )
    assert chat.closing("It is.") == "It is."
    assert chat.stops == ()


@needs_smollm2
def test_no_prompt_of_the_real_model_holds_its_system_prompt(smollm2):
    turns = [{"role": "user", "content": "Is it?"}]
    assert "You are a helpful" in smollm2.render_chat(turns, open_answer=True)
    chat = make_template("chat", render=smollm2.render_chat)
    for opening in (chat.open_question(), chat.open_answer("Was it?")):
        ids = assemble([DEMO, OTHER], opening, template=chat, encode=smollm2.encode)
        text = smollm2.hugging_face.decode(ids)
        assert text == chat.demonstration(DEMO) + chat.demonstration(OTHER) + opening
        assert "system" not in text and "helpful" not in text


def render_with_count(turns, *, open_answer):
    """A format that depends on the whole conversation, and begins with a preamble."""
    text = f"<system>Obey for {len(turns)} turns."
    text += "".join(f"<{turn['role']}>{turn['content']}" for turn in turns)
    return text + ("<assistant>" if open_answer else "")


def test_a_chat_s_conversation_is_rendered_as_a_whole_without_its_preamble():
    asked = []

    def render(turns, *, open_answer):
        asked.append(len(turns))
        return render_with_count(turns, open_answer=open_answer)

    chat = make_template("chat", render=render)
    asked.clear()
    assert chat.next_answer([DEMO, OTHER], "Will it be?") == (
        "<user>Is it?<assistant>It is.<user>Was it?<assistant>It was not."
        "<user>Will it be?<assistant>"
    )
    assert asked == [5]


def render_brackets(turns, *, open_answer):
    """A format like LLaMA-2's, whose conversations all begin in the same way."""
    text = "<s>"
    for turn in turns:
        words = turn["content"]
        text += f"[INST] {words} [/INST]" if turn["role"] == "user" else f" {words}</s>"
    return text


def test_a_format_that_opens_no_answer():
    chat = make_template("chat", render=render_brackets)
    assert chat.open_question() == "[INST] "
    assert chat.open_answer("Is it?") == "[INST] Is it? [/INST]"
    assert chat.demonstration(DEMO) == "[INST] Is it? [/INST] It is.</s>"


def render_the_last_turn_only(turns, *, open_answer):
    return f"<user>{turns[-1]['content']}"


@pytest.mark.parametrize(
    "render", [render_the_last_turn_only, lambda turns, *, open_answer: "hello"]
)
def test_a_format_that_does_not_mark_a_user_s_turn_is_refused(render):
    with pytest.raises(InputError, match="template=chat: this tokenizer's chat"):
        make_template("chat", render=render)


def test_a_tokenizer_without_a_chat_format_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.hugging_face.chat_template = None
    with pytest.raises(InputError, match="--template=chat: the tokenizer has no chat"):
        make_template("chat", render=tokenizer.render_chat)


def characters(text):
    return [ord(character) for character in text]


def within(budget, demos=(DEMO, OTHER)):
    return fitting(demos, template=PAPER, encode=characters, budget=budget)


def test_the_demonstrations_stand_before_the_open_turn():
    opening = PAPER.open_answer("Q?")
    ids = assemble([DEMO, OTHER], opening, template=PAPER, encode=characters)
    assert "".join(map(chr, ids)) == (
        PAPER.demonstration(DEMO) + PAPER.demonstration(OTHER) + opening
    )
    assert assemble([], opening, template=PAPER, encode=characters) == [
        *map(ord, opening)
    ]


def test_the_budget_counts_the_demonstrations_to_the_token():
    first = len(PAPER.demonstration(DEMO))
    both = first + len(PAPER.demonstration(OTHER))
    assert [len(within(n)) for n in (0, first - 1, first, both - 1, both)] == [
        *(0, 0, 1, 1, 2)
    ]


def test_nothing_follows_a_demonstration_that_was_left_out():
    long = Example(question="Why? " * 50, answer="So.", origin="seed-0002")
    assert within(200, (DEMO, long, OTHER)) == [DEMO]
