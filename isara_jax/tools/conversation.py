"""A conversation with one or several models, each of which sees its own answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from isara_jax.engine import Engine, SamplingParams
from isara_jax.examples import Example
from isara_jax.generation import Generator, SampleKind, make_request
from isara_jax.models import Decoder
from isara_jax.prompts import Prompt, PromptBuilder


@dataclass(frozen=True, kw_only=True)
class ChatModel:
    """A model that answers the next question of a conversation."""

    name: str
    model: Decoder
    prompt_builder: PromptBuilder
    generator: Generator
    sampling_params: SamplingParams

    def answer(
        self, earlier: Sequence[Example], question: str, *, sample_index: int
    ) -> str:
        """Answers a question after the conversation's earlier turns.

        Raises:
          InputError: the question does not fit the context, or the chat format fails.
        """
        prompt = self.prompt(earlier, question, sample_index=sample_index)
        ((completion,),) = self.engine.generate(
            [make_request(prompt)],
            sampling_params=self.sampling_params,
            stop_criteria=self.generator.stop_criteria,
            key=self.generator.key(round_index=0, kind=SampleKind.ANSWER),
        )
        return completion.text

    @cached_property
    def engine(self) -> Engine:
        """The model's engine."""
        return self.generator.engine(self.model)

    def prompt(
        self, earlier: Sequence[Example], question: str, *, sample_index: int
    ) -> Prompt:
        """Writes the conversation, the oldest turns left out where it is too long."""
        builder = self.prompt_builder
        max_tokens = builder.context - self.sampling_params.max_new_tokens
        for oldest in range(len(earlier) + 1):
            prompt = builder.zero_shot(
                builder.template.conversation_prompt(earlier[oldest:], question),
                id=str(sample_index),
                sample_index=sample_index,
            )
            if len(prompt.token_ids) <= max_tokens:
                break
        return prompt


class Conversation:
    """The questions so far, and the answers of each model."""

    def __init__(self, chat_models: Sequence[ChatModel]):
        self.chat_models = chat_models
        self.asked = 0
        self.forget()

    def forget(self) -> None:
        """Begins a new conversation, whose samples do not repeat those of the last."""
        self._turns: list[list[Example]] = [[] for _ in self.chat_models]

    def ask(self, question: str) -> list[str]:
        """Returns every model's answer; if one fails, the question is forgotten.

        Raises:
          InputError: as `ChatModel.answer`.
        """
        answers = [
            chat_model.answer(turns, question, sample_index=self.asked)
            for chat_model, turns in zip(self.chat_models, self._turns, strict=True)
        ]
        origin = f"turn-{self.asked:04d}"
        self.asked += 1
        for turns, answer in zip(self._turns, answers, strict=True):
            turns.append(Example(question=question, answer=answer, origin=origin))
        return answers
