"""Examples in token ids: a prompt, and the answer that is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

from absl import logging

from isara_jax.errors import FieldError, InputError


@dataclass(frozen=True, kw_only=True)
class TrainingExample:
    """A prompt and an answer in token ids. The loss is on the answer's tokens only.

    The caller ends `answer_tokens` with EOS, so that the model learns to stop. `id`
    names the example in messages.

    Raises:
      InputError: one of the two is empty.
    """

    id: str
    prompt_tokens: tuple[int, ...]
    answer_tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "answer_tokens"):
            if not getattr(self, name):
                raise InputError(
                    f"{self.id}: {name} is empty, needs at least one token"
                )

    def __len__(self) -> int:
        return len(self.prompt_tokens) + len(self.answer_tokens)


def num_positions(example: TrainingExample) -> int:
    """Returns the positions of an example; its last token is only predicted."""
    return len(example) - 1


def drop_too_long(
    examples: Sequence[TrainingExample], *, max_length: int
) -> tuple[TrainingExample, ...]:
    """Drops examples of more than `max_length` tokens, with a warning of their ids.

    Raises:
      FieldError: none is left.
    """
    kept = tuple(example for example in examples if len(example) <= max_length)
    if not kept:
        raise FieldError(
            "max_length",
            max_length,
            f"none of {len(examples)} examples is within {max_length} tokens of prompt "
            "and answer",
        )
    too_long = [example.id for example in examples if len(example) > max_length]
    if too_long:
        logging.warning(
            "%d of %d examples are longer than %d tokens and are not trained on: %s",
            *(len(too_long), len(examples), max_length, ", ".join(too_long)),
        )
    return kept
