"""What each speaker is given: its own earlier answers, as far as they fit."""

import jax
import pytest
from scripted_engine import ScriptedEngine
from tiny_generation import tiny_generator, tiny_prompt_builder
from tiny_llama import tiny_llama
from tiny_run import tiny_tokenizer

from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.errors import InputError
from isara_jax.examples import Example
from isara_jax.tools.conversation import ChatModel, Conversation

TOKENIZER = tiny_tokenizer()


def load_chat_model(name="A", *, template="paper_spaced", context=400):
    return ChatModel(
        name=name,
        model=tiny_llama(),
        prompt_builder=tiny_prompt_builder(
            TOKENIZER, template=template, demo_tokens=0, context=context
        ),
        generator=tiny_generator(
            TOKENIZER, template=template, slots=1, context=context
        ),
        sampling_params=SamplingParams(max_new_tokens=8),
    )


class Engine(ScriptedEngine):
    """Answers 'yes 0', 'yes 1' and so on, counting its own calls."""

    def completion(self, prompt):
        self.text_of = lambda id: f"yes {len(self.batches) - 1}"
        return super().completion(prompt)

    @property
    def texts(self):
        prompts = (batch[0].token_ids for batch in self.batches)
        return [TOKENIZER.hugging_face.decode(tokens) for tokens in prompts]


@pytest.fixture
def engine(monkeypatch):
    scripted = Engine()
    scripted.take_over(monkeypatch)
    return scripted


def test_every_speaker_recalls_its_own_answers(engine):
    talk = Conversation([load_chat_model(), load_chat_model("B")])
    assert talk.ask("is it true ?") == ["yes 0", "yes 1"]
    assert talk.ask("who ran ?") == ["yes 2", "yes 3"]
    first = "BEGINNING OF CONVERSATION: USER: is it true ? ASSISTANT:"
    stop_criteria = (
        "END OF CONVERSATION\n\nBEGINNING OF CONVERSATION: USER: who ran ? ASSISTANT:"
    )
    assert engine.texts == [
        *(first, first),
        *(f"{first} yes 0 {stop_criteria}", f"{first} yes 1 {stop_criteria}"),
    ]


def test_a_chat_is_written_in_the_model_s_format(engine):
    talk = Conversation([load_chat_model(template="chat")])
    talk.ask("is it true ?")
    talk.ask("who ran ?")
    assert engine.texts[1] == (
        "<|im_start|>user\nis it true ?<|im_end|>\n"
        "<|im_start|>assistant\nyes 0<|im_end|>\n"
        "<|im_start|>user\nwho ran ?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_is_forgotten_is_not_written_again_but_samples_stay_new(engine):
    talk = Conversation([load_chat_model()])
    for _ in range(2):
        talk.ask("is it true ?")
        talk.forget()
    assert engine.texts[0] == engine.texts[1]
    assert [batch[0].sample_index for batch in engine.batches] == [0, 1]
    assert engine.keys[0] == engine.keys[1]


def test_the_oldest_turns_give_way_to_the_new_tokens():
    turns = [
        Example(question=f"who {did} ?", answer="The cat.", origin=did)
        for did in ("sat", "ran", "slept")
    ]

    def prompt(earlier, context):
        return load_chat_model(context=context).prompt(
            earlier, "what ?", sample_index=0
        )

    whole, shorter = prompt(turns, 1000), prompt(turns[1:], 1000)
    needed = len(whole.token_ids) + 8
    assert prompt(turns, needed) == whole
    assert prompt(turns, needed - 1) == shorter != whole
    assert prompt(turns, 0) == prompt([], 1000)


def test_a_question_that_does_not_fit_is_recalled_by_nobody(engine):
    talk = Conversation(
        [load_chat_model(context=300), load_chat_model("B", context=40)]
    )
    with pytest.raises(InputError, match=r"fit the model's context of 40$"):
        talk.ask("is it true ? " * 10)
    talk.ask("who ran ?")
    assert "true" not in engine.texts[-1] and "true" not in engine.texts[-2]


def test_samples_follow_from_the_number_of_the_question():
    chat_model = load_chat_model(context=128)

    def ask(number):
        return chat_model.answer((), "who ran ?", sample_index=number)

    with jax.default_matmul_precision("highest"):
        first, second, again = ask(0), ask(1), ask(0)
    assert first == again != second
