"""A conversation with one model or with several, each of which recalls its own part."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from isara_jax.engine import Engine, Request, SamplingParams
from isara_jax.examples import Example
from isara_jax.generation import Sampler, Step
from isara_jax.models import Decoder


@dataclass(frozen=True, kw_only=True)
class ChatModel:
    """A model that answers; what was said before is given to it."""

    name: str
    model: Decoder
    sampler: Sampler
    sampling_params: SamplingParams

    def answer(self, earlier: Sequence[Example], question: str, *, number: int) -> str:
        """Answers a conversation's next question; its sample follows from `number`.

        Raises:
          InputError: the question does not fit the context, or the chat format fails.
        """
        prompt = self.prompt(earlier, question, number=number)
        ((completion,),) = self.engine.generate(
            [prompt],
            sampling_params=self.sampling_params,
            stop_criteria=self.sampler.stop_criteria,
            key=self.sampler.key(round_index=0, step=Step.ANSWERS),
        )
        return completion.text

    @cached_property
    def engine(self) -> Engine:
        """The model, ready to write."""
        return self.sampler.engine(self.model)

    def prompt(
        self, earlier: Sequence[Example], question: str, *, number: int
    ) -> Request:
        """Writes the conversation, without the oldest turns where it is too long."""
        room = self.sampler.context - self.sampling_params.max_new_tokens
        for oldest in range(len(earlier) + 1):
            opening = self.sampler.template.next_answer(earlier[oldest:], question)
            prompt = self.sampler.prompt(opening, id=str(number), number=number)
            if len(prompt.token_ids) <= room:
                break
        return prompt


class Conversation:
    """What was asked and answered so far."""

    def __init__(self, chat_models: Sequence[ChatModel]):
        self.chat_models = chat_models
        self.asked = 0
        self.forget()

    def forget(self) -> None:
        """Begins a new conversation, whose samples are new ones as well."""
        self._turns: list[list[Example]] = [[] for _ in self.chat_models]

    def ask(self, question: str) -> list[str]:
        """Returns every speaker's answer; where one fails, nobody recalls it.

        Raises:
          InputError: as `ChatModel.answer`.
        """
        answers = [
            chat_model.answer(turns, question, number=self.asked)
            for chat_model, turns in zip(self.chat_models, self._turns, strict=True)
        ]
        origin = f"turn-{self.asked:04d}"
        self.asked += 1
        for turns, answer in zip(self._turns, answers, strict=True):
            turns.append(Example(question=question, answer=answer, origin=origin))
        return answers
