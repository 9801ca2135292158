"""The templates to the letter."""

import pytest
from pretrained import SMOLLM2, needs_smollm2
from tiny_run import tiny_tokenizer

from isara_jax.errors import InputError
from isara_jax.examples import Example
from isara_jax.models.checkpoints.open import open_model
from isara_jax.prompts.builder import PromptBuilder, PromptTurn
from isara_jax.prompts.templates import make_template
from isara_jax.runtime.sources import locate

DEMO = Example(question="Is it?", answer="It is.", origin="seed-0000")
OTHER = Example(question="Was it?", answer="It was not.", origin="seed-0001")


def no_chat(turns, *, add_generation_prompt):
    raise AssertionError("a plain template renders no chat")


PAPER = make_template("paper", render=no_chat)


def test_the_paper_s_demonstration():
    assert PAPER.demonstration(DEMO) == (
        "BEGINNING OF CONVERSATION: USER: Is it? ASSISTANT: It is. "
        "END OF CONVERSATION\n\n"
    )


def test_the_paper_s_open_turns_end_without_a_space():
    assert PAPER.question_prompt() == "BEGINNING OF CONVERSATION: USER:"
    assert PAPER.answer_prompt("Is it?") == (
        "BEGINNING OF CONVERSATION: USER: Is it? ASSISTANT:"
    )


def test_the_paper_s_conversation_goes_on_as_a_prompt_with_demonstrations_does():
    assert PAPER.conversation_prompt([DEMO, OTHER], "Will it be?") == (
        PAPER.demonstration(DEMO)
        + PAPER.demonstration(OTHER)
        + PAPER.answer_prompt("Will it be?")
    )
    assert PAPER.conversation_prompt([], "Is it?") == PAPER.answer_prompt("Is it?")


def test_the_paper_puts_no_space_before_a_trained_answer_and_paper_spaced_does():
    assert PAPER.completion("It is.") == "It is."
    spaced = make_template("paper_spaced", render=no_chat)
    assert spaced.completion("It is.") == " It is."
    assert spaced.answer_prompt("Is it?") == PAPER.answer_prompt("Is it?")


def test_what_is_trained_in_the_spaced_template_continues_as_a_demonstration_does():
    spaced = make_template("paper_spaced", render=no_chat)
    trained = spaced.answer_prompt(DEMO.question) + spaced.completion(DEMO.answer)
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
    assert chat.question_prompt() == "<|im_start|>user\n"
    assert chat.answer_prompt("Is it?") == (
        "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.demonstration(DEMO) == (
        "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\nIt is.<|im_end|>\n"
    )
    assert chat.completion("It is.") == "It is."
    assert chat.stops == ()


@needs_smollm2
def test_no_prompt_of_the_real_model_holds_its_system_prompt(smollm2):
    turns = [{"role": "user", "content": "Is it?"}]
    assert "You are a helpful" in smollm2.render_chat(turns, add_generation_prompt=True)
    chat = make_template("chat", render=smollm2.render_chat)
    builder = PromptBuilder(
        tokenizer=smollm2, template=chat, context=8192, demo_tokens=2000
    )
    for opening in (chat.question_prompt(), chat.answer_prompt("Was it?")):
        turn = PromptTurn(id="", sample_index=0, text=opening, demos=[DEMO, OTHER])
        (prompt,) = builder.build([turn], max_new_tokens=1)
        text = smollm2.hugging_face.decode(prompt.token_ids)
        assert text == chat.demonstration(DEMO) + chat.demonstration(OTHER) + opening
        assert "system" not in text and "helpful" not in text


def render_with_count(turns, *, add_generation_prompt):
    """A format that depends on the whole conversation, and begins with a preamble."""
    text = f"<system>Obey for {len(turns)} turns."
    text += "".join(f"<{turn['role']}>{turn['content']}" for turn in turns)
    return text + ("<assistant>" if add_generation_prompt else "")


def test_a_chat_s_conversation_is_rendered_as_a_whole_without_its_preamble():
    asked = []

    def render(turns, *, add_generation_prompt):
        asked.append(len(turns))
        return render_with_count(turns, add_generation_prompt=add_generation_prompt)

    chat = make_template("chat", render=render)
    asked.clear()
    assert chat.conversation_prompt([DEMO, OTHER], "Will it be?") == (
        "<user>Is it?<assistant>It is.<user>Was it?<assistant>It was not."
        "<user>Will it be?<assistant>"
    )
    assert asked == [5]


def render_brackets(turns, *, add_generation_prompt):
    """A format like LLaMA-2's, whose conversations all begin in the same way."""
    text = "<s>"
    for turn in turns:
        words = turn["content"]
        text += f"[INST] {words} [/INST]" if turn["role"] == "user" else f" {words}</s>"
    return text


def test_a_format_that_opens_no_answer():
    chat = make_template("chat", render=render_brackets)
    assert chat.question_prompt() == "[INST] "
    assert chat.answer_prompt("Is it?") == "[INST] Is it? [/INST]"
    assert chat.demonstration(DEMO) == "[INST] Is it? [/INST] It is.</s>"


def render_the_last_turn_only(turns, *, add_generation_prompt):
    return f"<user>{turns[-1]['content']}"


@pytest.mark.parametrize(
    "render",
    [render_the_last_turn_only, lambda turns, *, add_generation_prompt: "hello"],
)
def test_a_format_that_does_not_mark_a_user_s_turn_is_refused(render):
    with pytest.raises(InputError, match="template=chat: this tokenizer's chat"):
        make_template("chat", render=render)


def test_a_tokenizer_without_a_chat_format_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.hugging_face.chat_template = None
    with pytest.raises(InputError, match="template=chat: the tokenizer has no chat"):
        make_template("chat", render=tokenizer.render_chat)
