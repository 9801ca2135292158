"""Demonstrations to text: the templates, the open turn, and the demo token budget.

A prompt holds demonstrations only; no instruction, principle or judge (PAPER.md 1).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
DemoOrder = Literal["paper", "shared"]


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How a run's prompts are written."""

    template: TemplateName = field(
        default="paper",
        metadata={
            "help": "how conversations are written: the paper's text; the same with a "
            "space before a trained answer, as in its demonstrations; or the model's "
            "own chat format"
        },
    )
    demo_tokens: int = field(
        default=2000,
        metadata={"help": "demonstrations of a prompt stop at so many tokens"},
    )
    demo_order: DemoOrder = field(
        default="paper",
        metadata={
            "help": "how a prompt's demonstrations are ordered; paper: as drawn, or "
            "nearest first; shared: so that many prompts begin alike, which saves "
            "computing"
        },
    )

    def __post_init__(self) -> None:
        if self.demo_tokens < 0:
            raise FieldError("demo_tokens", self.demo_tokens, "must be 0 or more")


@runtime_checkable
class RenderChat(Protocol):
    """A model's own chat format: turns of role and content to text."""

    def __call__(self, turns: list[dict[str, str]], *, open_answer: bool) -> str:
        """Writes the turns, and on request the beginning of the assistant's next."""
        ...


Encode = Callable[[str], list[int]]


@runtime_checkable
class Template(Protocol):
    """How a conversation is written down."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end a continuation."""
        ...

    def demonstration(self, example: Example) -> str:
        """Writes a closed conversation of one question and its answer."""
        ...

    def open_question(self) -> str:
        """Writes the beginning of a conversation whose question is to come."""
        ...

    def open_answer(self, question: str) -> str:
        """Writes a conversation up to the answer that is to come."""
        ...

    def next_answer(self, earlier: Sequence[Example], question: str) -> str:
        """Writes a conversation's earlier turns, and the next up to its answer."""
        ...

    def closing(self, answer: str) -> str:
        """Writes an answer as it follows `open_answer` in training and scoring."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConversationTemplate:
    """The paper's plain-text format (PAPER.md 1, 'Prompt format').

    `answer_lead` stands between `ASSISTANT:` and a trained answer: nothing in the
    paper, a space where training is to continue what the demonstrations look like.
    """

    answer_lead: str
    stops: tuple[str, ...] = PAPER_STOPS

    def demonstration(self, example: Example) -> str:
        return (
            f"{self.open_answer(example.question)} {example.answer} "
            "END OF CONVERSATION\n\n"
        )

    def open_question(self) -> str:
        return "BEGINNING OF CONVERSATION: USER:"

    def open_answer(self, question: str) -> str:
        return f"{self.open_question()} {question} ASSISTANT:"

    def next_answer(self, earlier: Sequence[Example], question: str) -> str:
        # The format closes after a pair, so earlier turns are demonstrations.
        closed = [self.demonstration(turn) for turn in earlier]
        return "".join(closed) + self.open_answer(question)

    def closing(self, answer: str) -> str:
        return f"{self.answer_lead}{answer}"


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """The model's own chat format, whatever its tokenizer says that is."""

    render: RenderChat
    opening: str
    stops: tuple[str, ...] = ()

    def demonstration(self, example: Example) -> str:
        return self._without_preamble(self.render(_turns(example), open_answer=False))

    def open_question(self) -> str:
        return self.opening

    def open_answer(self, question: str) -> str:
        return self.next_answer((), question)

    def next_answer(self, earlier: Sequence[Example], question: str) -> str:
        turns = [turn for example in earlier for turn in _turns(example)]
        turns.append({"role": "user", "content": question})
        return self._without_preamble(self.render(turns, open_answer=True))

    def closing(self, answer: str) -> str:
        return answer

    def _without_preamble(self, text: str) -> str:
        """Drops a system prompt that the format adds: it would be an instruction."""
        return text[max(text.find(self.opening), 0) :]


def make_template(
    name: str, *, render: RenderChat
) -> ConversationTemplate | ChatTemplate:
    """Returns the named template: `paper`, `paper_spaced` or `chat`.

    Raises:
      FieldError: `chat` with a tokenizer that has no usable chat format.
    """
    if name == "chat":
        return ChatTemplate(render=render, opening=_user_opening(render))
    return ConversationTemplate(answer_lead="" if name == "paper" else " ")


def fitting(
    demos: Sequence[Example], *, template: Template, encode: Encode, budget: int
) -> list[Example]:
    """Returns the demonstrations that `budget` tokens have room for.

    The first that would go past it is left out, and all after it.
    """
    used: list[Example] = []
    spent = 0
    for demo in demos:
        spent += len(encode(template.demonstration(demo)))
        if spent > budget:
            break
        used.append(demo)
    return used


def assemble(
    demos: Sequence[Example], opening: str, *, template: Template, encode: Encode
) -> list[int]:
    """Writes demonstrations, in order, and the open turn, as token ids."""
    return encode("".join(template.demonstration(demo) for demo in demos) + opening)


def _turns(example: Example) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": example.question},
        {"role": "assistant", "content": example.answer},
    ]


def _user_opening(render: RenderChat) -> str:
    """Finds what the chat format writes ahead of a user's words in a conversation."""
    mark = "\u2063words\u2063"
    user = {"role": "user", "content": mark}
    assistant = {"role": "assistant", "content": mark}
    closed = render([user, assistant], open_answer=False).split(mark)
    longer = render([user, assistant, user], open_answer=False).split(mark)
    if len(closed) == 3 and len(longer) == 4 and longer[2].startswith(closed[2]):
        opening = longer[2].removeprefix(closed[2])
        if opening:
            return opening
    raise FieldError(
        "template",
        "chat",
        "this tokenizer's chat format does not mark where a user's turn begins; choose "
        "another `template`",
    )


def arranged(
    prompts: Sequence[Sequence[Example]], *, order: DemoOrder
) -> list[list[Example]]:
    """Returns the demonstrations of each prompt in the order of their writing."""
    if order == "paper":
        return [list(demos) for demos in prompts]
    result: list[list[Example]] = [[] for _ in prompts]
    _share(prompts, list(range(len(prompts))), result)
    return result


def _share(
    prompts: Sequence[Sequence[Example]],
    places: list[int],
    result: list[list[Example]],
) -> None:
    """Lets the prompts at these places go on with the demo that most of them have.

    Those that do not have it go on among themselves: a trie, grown greedily. Of equally
    frequent ones the first in the paper's order is taken.
    """
    while places:
        counts: Counter[Example] = Counter()
        for place in places:
            written = set(result[place])
            counts.update(demo for demo in prompts[place] if demo not in written)
        if not counts:
            return
        demo, count = counts.most_common(1)[0]
        if count == 1:
            for place in places:
                written = set(result[place])
                result[place] += [d for d in prompts[place] if d not in written]
            return
        having = [place for place in places if demo in prompts[place]]
        for place in having:
            result[place].append(demo)
        _share(prompts, having, result)
        places = [place for place in places if demo not in prompts[place]]
