"""What is asked of the engine: a prompt in token ids."""

from dataclasses import dataclass

from isara_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt in token ids. `number` is folded into the key of its sample.

    `new_tokens` is the most that this prompt asks for, where it asks for fewer than the
    decoding rules allow.
    """

    id: str
    number: int
    tokens: tuple[int, ...]
    new_tokens: int | None = None

    @property
    def sort_key(self) -> tuple[tuple[int, ...], int]:
        """What prompts are sorted by, so that those that begin alike are neighbours."""
        return self.tokens, self.number

    def limit(self, most: int) -> int:
        """Returns how many tokens may follow, of which the rules allow `most`."""
        return most if self.new_tokens is None else min(self.new_tokens, most)


def validate_length(prompt: Request, *, new: int, context: int) -> None:
    """Refuses a prompt that leaves no room in the context for `new` tokens.

    Raises:
      InputError: it has none, or too many.
    """
    if not prompt.tokens or len(prompt.tokens) + new > context:
        raise InputError(
            f"the prompt {prompt.id} has {len(prompt.tokens)} tokens; with {new} new "
            f"ones it must have 1 or more and fit the model's context of {context}"
        )
