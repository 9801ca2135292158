"""What ends a continuation, and the continuation that has ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from isara_jax.engine.request import Request

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, kw_only=True)
class StopCriteria:
    """What ends a continuation besides its length."""

    eos: tuple[int, ...]
    stops: tuple[str, ...]
    decode: Decode


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A prompt's continuation: its text is cut at the stop string and stripped.

    `log_probability` is the sum over `tokens` under the model's own distribution, in
    nats, before any rule. `finish_reason` is `eos`, `stop` or `length`.
    """

    id: str
    sample_index: int
    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    log_probability: float
    finish_reason: str


def has_stop(tokens: np.ndarray, stop_criteria: StopCriteria) -> bool:
    """Whether a stop string is in what was decoded."""
    if not stop_criteria.stops:
        return False
    kept, _ = _until_eos(tokens, stop_criteria.eos)
    return find_stop(stop_criteria.decode(kept), stop_criteria.stops) is not None


def completion_of(
    prompt: Request,
    tokens: np.ndarray,
    *,
    scores: np.ndarray,
    stop_criteria: StopCriteria,
) -> Completion:
    """Cuts what was decoded for a prompt; `scores` are its log-probabilities."""
    kept, ended = _until_eos(tokens, stop_criteria.eos)
    finish_reason, counted = ("eos", len(kept) + 1) if ended else ("length", len(kept))
    stop = tokens_until_stop(
        kept, stops=stop_criteria.stops, decode=stop_criteria.decode
    )
    if stop is not None:
        kept, finish_reason, counted = kept[:stop], "stop", stop
    text = stop_criteria.decode(kept)
    return Completion(
        id=prompt.id,
        sample_index=prompt.sample_index,
        text=text[: find_stop(text, stop_criteria.stops)].strip(),
        tokens=tuple(tokens[:counted].tolist()),
        prompt_tokens=len(prompt.token_ids),
        log_probability=float(scores[:counted].sum(dtype=np.float64)),
        finish_reason=finish_reason,
    )


def _until_eos(tokens: np.ndarray, eos: Sequence[int]) -> tuple[list[int], bool]:
    ends = np.flatnonzero(np.isin(tokens, eos))
    if ends.size == 0:
        return tokens.tolist(), False
    return tokens[: ends[0]].tolist(), True


def find_stop(text: str, stops: Sequence[str]) -> int | None:
    """Returns where the first stop string begins; one at position 0 does not count."""
    found = [at for at in (text.find(stop, 1) for stop in stops) if at > 0]
    return min(found, default=None)


def tokens_until_stop(
    tokens: Sequence[int], *, stops: Sequence[str], decode: Decode
) -> int | None:
    """Counts the tokens up to the one that completes a stop string, if there is one.

    What is made of these tokens alone does not depend on how many more were decoded
    before the stop was noticed.
    """
    if find_stop(decode(tokens), stops) is None:
        return None
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if find_stop(decode(tokens[:middle]), stops) is None:
            low = middle + 1
        else:
            high = middle
    return low
