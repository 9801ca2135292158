"""Templates: how a conversation of questions and answers is written as text.

A prompt holds demonstrations and an open turn; no instruction, principle or judge
(docs/method.md, "Prompts").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from isara_jax.errors import FieldError
from isara_jax.examples import Example

PAPER_STOPS = (
    "BEGIN",
    "END",
    "USER",
    "ASSISTANT",
    "ASSISTENT",
    "\\begin",
    "\\end",
    "ANS",
)
TemplateName = Literal["paper", "paper_spaced", "chat"]


@runtime_checkable
class RenderChat(Protocol):
    """A tokenizer's own chat format: turns of role and content to text."""

    def __call__(
        self, turns: list[dict[str, str]], *, add_generation_prompt: bool
    ) -> str:
        """Writes the turns, and on request the beginning of the assistant's next."""
        ...


@runtime_checkable
class Template(Protocol):
    """How a conversation is written as text."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end a continuation."""
        ...

    def demonstration(self, example: Example) -> str:
        """Writes a whole conversation of one question and its answer."""
        ...

    def question_prompt(self) -> str:
        """Writes a conversation up to the user's question."""
        ...

    def answer_prompt(self, question: str) -> str:
        """Writes a conversation up to the assistant's answer."""
        ...

    def conversation_prompt(self, earlier: Sequence[Example], question: str) -> str:
        """Writes earlier turns, then a question up to the assistant's answer."""
        ...

    def completion(self, answer: str) -> str:
        """Writes an answer as it follows `answer_prompt` in training and scoring."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlainTemplate:
    """The paper's plain text.

    `answer_lead` stands between `ASSISTANT:` and a trained answer: nothing in the
    paper, a space where training continues what the demonstrations look like.
    """

    answer_lead: str
    stops: tuple[str, ...] = PAPER_STOPS

    def demonstration(self, example: Example) -> str:
        """As `Template.demonstration`."""
        prompt = self.answer_prompt(example.question)
        return f"{prompt} {example.answer} END OF CONVERSATION\n\n"

    def question_prompt(self) -> str:
        """As `Template.question_prompt`."""
        return "BEGINNING OF CONVERSATION: USER:"

    def answer_prompt(self, question: str) -> str:
        """As `Template.answer_prompt`."""
        return f"{self.question_prompt()} {question} ASSISTANT:"

    def conversation_prompt(self, earlier: Sequence[Example], question: str) -> str:
        """As `Template.conversation_prompt`; an earlier turn is a demonstration."""
        turns = [self.demonstration(turn) for turn in earlier]
        return "".join(turns) + self.answer_prompt(question)

    def completion(self, answer: str) -> str:
        """As `Template.completion`."""
        return f"{self.answer_lead}{answer}"


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """The chat format of the model's tokenizer, without a system prompt.

    `user_prefix` is what the format writes before a user's words.
    """

    render: RenderChat
    user_prefix: str
    stops: tuple[str, ...] = ()

    def demonstration(self, example: Example) -> str:
        """As `Template.demonstration`."""
        text = self.render(_messages([example]), add_generation_prompt=False)
        return self._without_system_prompt(text)

    def question_prompt(self) -> str:
        """As `Template.question_prompt`."""
        return self.user_prefix

    def answer_prompt(self, question: str) -> str:
        """As `Template.answer_prompt`."""
        return self.conversation_prompt((), question)

    def conversation_prompt(self, earlier: Sequence[Example], question: str) -> str:
        """As `Template.conversation_prompt`."""
        messages = [*_messages(earlier), {"role": "user", "content": question}]
        text = self.render(messages, add_generation_prompt=True)
        return self._without_system_prompt(text)

    def completion(self, answer: str) -> str:
        """As `Template.completion`."""
        return answer

    def _without_system_prompt(self, text: str) -> str:
        """Drops a system prompt that the format adds: it would be an instruction."""
        return text[max(text.find(self.user_prefix), 0) :]


def make_template(
    name: TemplateName, *, render: RenderChat
) -> PlainTemplate | ChatTemplate:
    """Returns the named template; `render` is the tokenizer's own chat format.

    Raises:
      FieldError: `chat` with a tokenizer that has no usable chat format.
    """
    if name == "chat":
        return ChatTemplate(render=render, user_prefix=_find_user_prefix(render))
    return PlainTemplate(answer_lead="" if name == "paper" else " ")


def _messages(examples: Sequence[Example]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for example in examples
        for role, content in (
            ("user", example.question),
            ("assistant", example.answer),
        )
    ]


def _find_user_prefix(render: RenderChat) -> str:
    """Finds what the chat format writes before a user's words in a conversation.

    It is what a second user turn adds to a conversation of one pair, up to its words.
    """
    mark = "\u2063words\u2063"
    user = {"role": "user", "content": mark}
    assistant = {"role": "assistant", "content": mark}
    pair = render([user, assistant], add_generation_prompt=False).split(mark)
    longer = render([user, assistant, user], add_generation_prompt=False).split(mark)
    if len(pair) == 3 and len(longer) == 4 and longer[2].startswith(pair[2]):
        prefix = longer[2].removeprefix(pair[2])
        if prefix:
            return prefix
    raise FieldError(
        "template",
        "chat",
        "this tokenizer's chat format does not mark where a user's turn begins; choose "
        "another `template`",
    )
