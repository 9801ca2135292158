"""Prompts in token ids: as many demonstrations as fit, then an open turn."""

from collections.abc import Sequence
from dataclasses import dataclass

from isara_jax.examples import Example
from isara_jax.prompts.demo_order import DemoOrder, order_demos
from isara_jax.prompts.templates import Template
from isara_jax.runtime import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PromptTurn:
    """An open turn that a model is to continue, and the demonstrations found for it."""

    id: str
    sample_index: int
    text: str
    demos: Sequence[Example] = ()


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt in token ids, and the ids of the demonstrations that it holds.

    `sample_index` is folded into the key of its sample.
    """

    id: str
    sample_index: int
    token_ids: tuple[int, ...]
    demos: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PromptBuilder:
    """Writes prompts, and the completions that are trained and scored after them.

    See docs/method.md, "Prompts".

    Attributes:
      context: the most tokens of a prompt and its continuation.
      demo_tokens: the most tokens of a prompt's demonstrations.
    """

    tokenizer: Tokenizer
    template: Template
    context: int
    demo_tokens: int = 0
    demo_order: DemoOrder = "paper"

    def build(
        self, turns: Sequence[PromptTurn], *, max_new_tokens: int
    ) -> list[Prompt]:
        """Writes the prompts of a step, each with demonstrations of its turn.

        They leave room in the context for the open turn and `max_new_tokens`.
        """
        fitting = [self._fitting_demos(turn, max_new_tokens) for turn in turns]
        ordered = order_demos(fitting, order=self.demo_order)
        return [
            Prompt(
                id=turn.id,
                sample_index=turn.sample_index,
                token_ids=self._token_ids(demos, turn.text),
                demos=tuple(demo.origin for demo in demos),
            )
            for turn, demos in zip(turns, ordered, strict=True)
        ]

    def zero_shot(self, text: str, *, id: str = "", sample_index: int = 0) -> Prompt:
        """Writes an open turn without demonstrations."""
        token_ids = self._token_ids((), text)
        return Prompt(id=id, sample_index=sample_index, token_ids=token_ids)

    def completion_ids(self, answer: str) -> tuple[int, ...]:
        """Returns an answer as it is trained and scored after its prompt, EOS last."""
        text = self.template.completion(answer)
        return (*self.tokenizer.encode(text), self.tokenizer.eos[0])

    def _fitting_demos(self, turn: PromptTurn, max_new_tokens: int) -> list[Example]:
        """Returns the turn's demonstrations up to the first that exceeds the budget."""
        open_turn = len(self.tokenizer.bos) + len(self.tokenizer.encode(turn.text))
        budget = min(self.demo_tokens, self.context - open_turn - max_new_tokens)
        fitting: list[Example] = []
        for demo in turn.demos:
            budget -= len(self.tokenizer.encode(self.template.demonstration(demo)))
            if budget < 0:
                break
            fitting.append(demo)
        return fitting

    def _token_ids(self, demos: Sequence[Example], text: str) -> tuple[int, ...]:
        """Writes demonstrations, in order, and the open turn after one BOS."""
        demonstrations = [self.template.demonstration(demo) for demo in demos]
        ids = self.tokenizer.encode("".join(demonstrations) + text)
        bos = self.tokenizer.bos
        return tuple(ids) if tuple(ids[: len(bos)]) == bos else (*bos, *ids)
