"""Continues prompts in batches, in stretches between which the host looks for stops.

A sample is fixed by the model, its prompt and its own key: neither the batch it is in
nor the slot decides anything (DESIGN 5). Stop strings are looked for on the host, once
every `STEPS_BETWEEN_CHECKS` tokens; what was decoded past one is dropped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from isara_jax.engine.batches import Batch, Prompt, Shape, left_padded
from isara_jax.engine.decoding import Decoding
from isara_jax.engine.loops import DecodeState, decode, start
from isara_jax.engine.stops import Decode, find_stop, tokens_until_stop
from isara_jax.models.decoder import Decoder
from isara_jax.runtime.mesh import Mesh, place_batch

STEPS_BETWEEN_CHECKS = 8


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What ends a continuation besides its length."""

    eos: tuple[int, ...]
    stops: tuple[str, ...]
    decode: Decode


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A prompt's continuation: its text is cut at the stop string and stripped.

    `log_probability` is the sum over `tokens` under the model's own distribution, in
    nats, before any rule. `finish` is `eos`, `stop` or `length`.
    """

    id: str
    number: int
    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    log_probability: float
    finish: str


def generate_batch(
    model: Decoder,
    batch: Batch,
    *,
    decoding: Decoding,
    ending: Ending,
    key: Key[Array, ""],
    mesh: Mesh,
    check: Callable[[], None],
) -> list[Completion]:
    """Continues every prompt of the batch; `key` is that of the round's step.

    `check` is called before every stretch of decoding, and may raise to stop the run.

    Raises:
      ValueError: the batch was planned for fewer new tokens.
    """
    refuse_lack_of_room(batch.shape, decoding.max_new_tokens)
    tokens, segments = left_padded(batch)
    state = start(
        model,
        place_batch(tokens, mesh),
        place_batch(segments, mesh),
        shape=batch.shape,
        mesh=mesh,
    )
    keys = sample_keys(batch, key)
    eos = jnp.asarray(ending.eos, jnp.int32)
    done = np.arange(batch.shape.rows) >= len(batch.prompts)
    for first in range(0, decoding.max_new_tokens, STEPS_BETWEEN_CHECKS):
        check()
        last = min(first + STEPS_BETWEEN_CHECKS, decoding.max_new_tokens)
        state = decode(
            model,
            replace(state, done=place_batch(done, mesh)),
            decoding.strengths,
            keys=keys,
            eos=eos,
            first_slot=jnp.int32(batch.shape.prompt),
            last_slot=jnp.int32(batch.shape.prompt + last),
            form=decoding.form,
        )
        rows = zip(np.asarray(state.done), _written(state, batch.shape), strict=True)
        done = np.array([ended or _has_stop(row, ending) for ended, row in rows])
        if done.all():
            break
    return _completions(batch, state, ending=ending)


def refuse_lack_of_room(shape: Shape, max_new_tokens: int) -> None:
    """Refuses to continue a batch by more tokens than it was planned for.

    Raises:
      ValueError: it was planned for fewer.
    """
    room = shape.capacity - shape.prompt
    if max_new_tokens > room:
        raise ValueError(
            f"max_new_tokens={max_new_tokens}: the batch was planned with room for "
            f"{room}"
        )


def sample_keys(batch: Batch, key: Key[Array, ""]) -> Key[Array, " B"]:
    """Returns the key of every row's sample, folded from that of the step."""
    numbers = [prompt.number for prompt in batch.prompts]
    numbers += numbers[-1:] * (batch.shape.rows - len(numbers))
    return jax.vmap(partial(jax.random.fold_in, key))(jnp.asarray(numbers))


def _written(state: DecodeState, shape: Shape) -> np.ndarray:
    return np.asarray(state.history)[:, shape.prompt : int(state.cache.length)]


def _has_stop(tokens: np.ndarray, ending: Ending) -> bool:
    kept, _ = _until_eos(tokens, ending.eos)
    return find_stop(ending.decode(kept), ending.stops) is not None


def _until_eos(tokens: np.ndarray, eos: Sequence[int]) -> tuple[list[int], bool]:
    ends = np.flatnonzero(np.isin(tokens, eos))
    if ends.size == 0:
        return tokens.tolist(), False
    return tokens[: ends[0]].tolist(), True


def _completions(
    batch: Batch, state: DecodeState, *, ending: Ending
) -> list[Completion]:
    tokens = _written(state, batch.shape)
    scores = np.asarray(state.log_probabilities)[:, batch.shape.prompt :]
    return [
        completion_of(prompt, tokens[row], log_probabilities=scores[row], ending=ending)
        for row, prompt in enumerate(batch.prompts)
    ]


def completion_of(
    prompt: Prompt,
    tokens: np.ndarray,
    *,
    log_probabilities: np.ndarray,
    ending: Ending,
) -> Completion:
    """Cuts what was decoded where it ends; what stands behind the end is dropped."""
    kept, ended = _until_eos(tokens, ending.eos)
    finish, counted = ("eos", len(kept) + 1) if ended else ("length", len(kept))
    stop = tokens_until_stop(kept, stops=ending.stops, decode=ending.decode)
    if stop is not None:
        kept, finish, counted = kept[:stop], "stop", stop
    text = ending.decode(kept)
    return Completion(
        id=prompt.id,
        number=prompt.number,
        text=text[: find_stop(text, ending.stops)].strip(),
        tokens=tuple(tokens[:counted].tolist()),
        prompt_tokens=len(prompt.tokens),
        log_probability=float(log_probabilities[:counted].sum(dtype=np.float64)),
        finish=finish,
    )
