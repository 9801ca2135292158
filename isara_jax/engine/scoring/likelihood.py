"""Log-probabilities of given continuations; a prompt is run once for all of its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from isara_jax.engine.kv_cache import round_up, rows_within
from isara_jax.engine.padded_batch import BatchShape, PaddedBatch, left_padded
from isara_jax.engine.request import Request
from isara_jax.errors import InputError
from isara_jax.models import Decoder, LeftPaddedCache, extend, prefill
from isara_jax.models.attention import attention_backend
from isara_jax.runtime import Mesh, shard_batch

PROMPT_STEP = 32
CONTINUATION_STEP = 16
# The head runs on so many positions at once: [positions, V] in fp32 stays small.
HEAD_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class LoglikelihoodRequest:
    """A prompt and the continuations whose log-probabilities are asked for."""

    prompt: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]


def loglikelihood(
    model: Decoder,
    items: Sequence[LoglikelihoodRequest],
    *,
    slots: int,
    mesh: Mesh,
    check: Callable[[], None],
) -> Iterator[tuple[float, ...]]:
    """Yields, item by item, log p(continuation | prompt) of each, in nats.

    Raises:
      InputError: an item has an empty prompt or continuation, or does not fit the
        model's context.
    """
    for number, item in enumerate(items):
        _refuse_misfit(item, number=number, context=model.config.context)
    data = mesh.shape["data"]
    rows = min(rows_within(slots, multiple=data), round_up(max(1, len(items)), data))
    length = round_up(max((len(i.prompt) for i in items), default=1), PROMPT_STEP)
    for first in range(0, len(items), rows):
        check()
        group = items[first : first + rows]
        yield from _score_group(model, group, rows=rows, length=length, mesh=mesh)


def _score_group(
    model: Decoder,
    items: Sequence[LoglikelihoodRequest],
    *,
    rows: int,
    length: int,
    mesh: Mesh,
) -> list[tuple[float, ...]]:
    prompts = tuple(
        Request(id="", sample_index=0, token_ids=tuple(item.prompt)) for item in items
    )
    shape = BatchShape(rows=rows, prompt=length)
    tokens, segments = left_padded(PaddedBatch(prompts=prompts, shape=shape))
    hidden, cache = _prefill(
        model, shard_batch(tokens, mesh), shard_batch(segments, mesh), mesh=mesh
    )
    wanted = [
        (len(continuation), number, place)
        for number, item in enumerate(items)
        for place, continuation in enumerate(item.continuations)
    ]
    sums = [[0.0] * len(item.continuations) for item in items]
    wanted.sort()
    for first in range(0, len(wanted), rows):
        chosen = wanted[first : first + rows]
        texts = [items[number].continuations[place] for _, number, place in chosen]
        owners = [number for _, number, _ in chosen]
        totals = _continue(
            model, cache, hidden, owners=owners, texts=texts, rows=rows, mesh=mesh
        )
        for (_, number, place), total in zip(chosen, totals, strict=False):
            sums[number][place] = float(total)
    return [tuple(values) for values in sums]


def _continue(
    model: Decoder,
    cache: LeftPaddedCache,
    hidden: Float[Array, "B D"],
    *,
    owners: Sequence[int],
    texts: Sequence[Sequence[int]],
    rows: int,
    mesh: Mesh,
) -> np.ndarray:
    width = round_up(max(len(text) for text in texts), CONTINUATION_STEP)
    tokens = np.zeros((rows, width), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = text
    owner = np.zeros(rows, np.int32)
    owner[: len(owners)] = owners
    row_of = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    column = np.concatenate([np.arange(len(text)) for text in texts])
    count = round_up(len(row_of), HEAD_CHUNK)
    place = np.zeros((2, count), np.int32)
    place[:, : len(row_of)] = row_of, column
    each = _log_probabilities(
        model, cache, hidden, shard_batch(owner, mesh), shard_batch(tokens, mesh), place
    )
    each = np.asarray(each, np.float64)[: len(row_of)]
    return np.bincount(row_of, weights=each, minlength=len(texts))


@partial(jax.jit, static_argnames="mesh")
def _prefill(
    model: Decoder,
    tokens: Int[Array, "B T"],
    segments: Int[Array, "B T"],
    *,
    mesh: Mesh,
) -> tuple[Float[Array, "B D"], LeftPaddedCache]:
    return prefill(
        model,
        tokens,
        segments=segments,
        capacity=tokens.shape[1],
        backend=attention_backend(mesh),
    )


@jax.jit
def _log_probabilities(
    model: Decoder,
    cache: LeftPaddedCache,
    hidden: Float[Array, "P D"],
    owner: Int[Array, " B"],
    tokens: Int[Array, "B T"],
    place: Int[Array, "2 M"],
) -> Float[Array, " M"]:
    """Scores tokens[place], each from the hidden state one position before it."""
    room = tokens.shape[1]
    tail = ((0, 0), (0, 0), (0, 0), (0, room), (0, 0))
    own = LeftPaddedCache(
        keys=jnp.pad(cache.keys[:, owner], tail),
        values=jnp.pad(cache.values[:, owner], tail),
        segments=jnp.pad(cache.segments[owner], ((0, 0), (0, room))),
        length=cache.length,
    )
    after, _ = extend(model, tokens, own)
    before = jnp.concatenate([hidden[owner][:, None], after[:, :-1]], axis=1)
    row, column = place
    states = before[row, column].reshape(-1, HEAD_CHUNK, before.shape[-1])
    targets = tokens[row, column].reshape(-1, HEAD_CHUNK)
    return jax.lax.map(partial(_score_chunk, model), (states, targets)).reshape(-1)


def _score_chunk(model: Decoder, chunk: tuple[Array, Array]) -> Float[Array, " M"]:
    states, targets = chunk
    logits = model.logits(states)
    own = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
    return own - jax.nn.logsumexp(logits, axis=-1)


def _refuse_misfit(item: LoglikelihoodRequest, *, number: int, context: int) -> None:
    lengths = [len(continuation) for continuation in item.continuations]
    empty = not item.prompt or 0 in lengths
    if empty or len(item.prompt) + max(lengths, default=0) > context:
        raise InputError(
            f"item {number} to score has a prompt of {len(item.prompt)} tokens and "
            f"continuations of {lengths}; none may be empty, and each must fit the "
            f"model's context of {context} together with the prompt"
        )
