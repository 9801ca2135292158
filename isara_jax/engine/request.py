"""What is asked of the engine: a prompt in token ids."""

from dataclasses import dataclass

from isara_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt to be continued.

    Attributes:
      sample_index: is folded into the random key of the request's sample.
      token_ids: the prompt.
      max_new_tokens: the most that the request asks for, where that is fewer than
        the `SamplingParams` allow.
    """

    id: str
    sample_index: int
    token_ids: tuple[int, ...]
    max_new_tokens: int | None = None

    @property
    def sort_key(self) -> tuple[tuple[int, ...], int]:
        """Sorts requests so that neighbours share the longest prefixes."""
        return self.token_ids, self.sample_index

    def limit(self, most: int) -> int:
        """Returns how many tokens may be generated, of which the call allows `most`."""
        return most if self.max_new_tokens is None else min(self.max_new_tokens, most)


def validate_length(request: Request, *, new: int, context: int) -> None:
    """Refuses a prompt that leaves no room in the context for `new` tokens.

    Raises:
      InputError: it has no tokens, or too many.
    """
    length = len(request.token_ids)
    if not length or length + new > context:
        raise InputError(
            f"the prompt {request.id} has {length} tokens; with {new} new ones it must "
            f"have 1 or more and fit the model's context of {context}"
        )
