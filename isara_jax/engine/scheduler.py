"""Which requests are decoded in one batch: those that share a prefix.

The plan of a call follows from all of its requests, so that a resumed run, which has
some of them already, decodes the others in programs of the same shapes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax

from isara_jax.engine.kv_cache import (
    LayerBlocks,
    bucketed_len,
    position_bytes,
    round_up,
    rows_within,
)
from isara_jax.engine.prefill import PrefillSpans, common_prefix_len, plan_spans
from isara_jax.engine.request import Request, validate_length
from isara_jax.models.attention import attention_backend
from isara_jax.runtime import Mesh, platform_of
from isara_jax.runtime.hardware import free_bytes

# The slots share a prefix of at least so many tokens, and requests get a group of their
# own if the prefix that they share is longer by at least as many.
MIN_SHARED_LEN = 64
# A single request has an empty slot beside it, if it may: for a cache of one row XLA on
# CPU copies all of it every step, and its products with one row use one core.
MIN_ROWS = 2
# The buckets of the shared prefix's length.
SHARED_LEN_STEP = 128
# The part of the free memory that the slots may take; programs need the rest.
MEMORY_SHARE = 0.7


@dataclass(frozen=True, kw_only=True)
class PlannedRequest:
    """A request, and the spans in which its prompt is computed."""

    request: Request
    spans: PrefillSpans


@dataclass(frozen=True, kw_only=True)
class PrefixGroup:
    """Requests that share a prefix and are decoded in one batch.

    Attributes:
      planned: the requests, in the order in which they enter the batch.
      shared_len: the tokens of the prefix that all of them share; may be 0.
      rows: the slots of the batch.
      max_len: the positions that a slot can hold behind the shared ones.
      beams: the beams of each slot.
      max_branch_len: the positions that the beams of a slot write beside its row; 0
        without beams, as a continuation is in the row.
    """

    planned: tuple[PlannedRequest, ...]
    shared_len: int
    rows: int
    max_len: int
    beams: int = 1
    max_branch_len: int = 0

    @property
    def longest_prompt(self) -> int:
        """The tokens of the longest prompt."""
        return max(len(planned.request.token_ids) for planned in self.planned)

    @property
    def max_shared_len(self) -> int:
        """The positions that the cache keeps for the shared prefix."""
        return round_up(self.shared_len, SHARED_LEN_STEP)


def useful_slots(platform: str | None = None) -> int:
    """Returns how many slots are worth having on a platform, if memory allows.

    It is the default one unless given.
    """
    return 32 if (platform or jax.default_backend()) == "cpu" else 256


def plan_groups(
    requests: Sequence[Request],
    *,
    slots: int,
    row_multiple: int,
    max_new_tokens: int,
    context: int,
    beams: int = 1,
) -> tuple[PrefixGroup, ...]:
    """Groups the requests by prefix, each group with at most `slots` rows.

    The rows are a multiple of `row_multiple`, and at least that. With beams, each of
    which takes a slot, there are as many rows as the slots have prompts.

    Raises:
      InputError: a prompt and its continuation do not fit the model's context.
    """
    for request in requests:
        validate_length(request, new=request.limit(max_new_tokens), context=context)
    if not requests:
        return ()
    most = rows_within(slots // beams, multiple=row_multiple)
    ordered = sorted(requests, key=lambda request: request.sort_key)
    return tuple(
        _make_group(
            members,
            most=most,
            row_multiple=row_multiple,
            max_new_tokens=max_new_tokens,
            beams=beams,
        )
        for members in _split_by_prefix(ordered, min_size=most)
    )


def rows_that_fit(
    layer_blocks: LayerBlocks,
    group: PrefixGroup,
    *,
    mesh: Mesh,
    free: int | None = None,
) -> int:
    """Returns how many of the group's rows the free memory can hold, at least 1.

    `free` are the bytes of a device, asked for unless given.
    """
    free = free_bytes() if free is None else free
    if free is None:
        return group.rows
    config = layer_blocks.model.config
    position = position_bytes(layer_blocks, attention_backend(mesh))
    # A text's logits, and which tokens it has seen; sampling takes copies of both.
    texts = group.beams * 4 * 5 * config.vocab_size
    row = position * (group.max_len + group.max_branch_len) + texts
    fixed = position * (group.max_shared_len + group.max_len + group.longest_prompt)
    devices = mesh.shape["data"] if platform_of(mesh) != "cpu" else 1
    fitting = int(MEMORY_SHARE * free - fixed) // row * devices
    return max(1, min(group.rows, fitting))


def _split_by_prefix(
    ordered: Sequence[Request], *, min_size: int
) -> Iterator[list[Request]]:
    """Yields the requests that share a longer prefix than all do, then the rest.

    Such groups have at least `min_size` requests, and are split further themselves.
    """
    shared_len = _shared_len(ordered)
    rest: list[Request] = []
    for run in _runs(ordered, min_shared_len=shared_len + MIN_SHARED_LEN):
        if min_size <= len(run) < len(ordered):
            yield from _split_by_prefix(run, min_size=min_size)
        else:
            rest += run
    if rest:
        yield rest


def _runs(
    ordered: Sequence[Request], *, min_shared_len: int
) -> Iterator[list[Request]]:
    """Splits the requests where neighbours share a shorter prefix than that."""
    run: list[Request] = []
    for request in ordered:
        if run and (
            common_prefix_len(run[-1].token_ids, request.token_ids) < min_shared_len
        ):
            yield run
            run = []
        run.append(request)
    yield run


def _shared_len(ordered: Sequence[Request]) -> int:
    """Returns the length of the prefix that all share; each keeps one token more."""
    first, last = ordered[0].token_ids, ordered[-1].token_ids
    shortest = min(len(request.token_ids) for request in ordered)
    length = min(common_prefix_len(first, last), shortest - 1)
    return length if length >= MIN_SHARED_LEN and len(ordered) > 1 else 0


def _make_group(
    members: Sequence[Request],
    *,
    most: int,
    row_multiple: int,
    max_new_tokens: int,
    beams: int,
) -> PrefixGroup:
    shared_len = _shared_len(members)
    max_len = max(
        len(r.token_ids) + (r.limit(max_new_tokens) if beams == 1 else 0)
        for r in members
    )
    planned = [
        PlannedRequest(request=request, spans=spans)
        for request, spans in zip(
            members,
            plan_spans([request.token_ids for request in members]),
            strict=True,
        )
    ]
    # Beams of prompts that begin together end together: batches of equally many rows.
    batches = -(-len(members) // most) if beams > 1 else 1
    wanted = max(-(-len(members) // batches), MIN_ROWS)
    return PrefixGroup(
        planned=tuple(_longest_first(planned, max_new_tokens=max_new_tokens)),
        shared_len=shared_len,
        rows=min(most, round_up(wanted, row_multiple)),
        max_len=bucketed_len(max_len - shared_len),
        beams=beams,
        max_branch_len=beams * max_new_tokens if beams > 1 else 0,
    )


def _longest_first(
    ordered: Sequence[PlannedRequest], *, max_new_tokens: int
) -> Iterator[PlannedRequest]:
    """Moves requests that may generate most to the front, where that costs no reuse.

    A long continuation that begins last would be decoded alone. Requests whose prompts
    are computed from one another stay together, and in their order.
    """
    families: list[list[PlannedRequest]] = []
    last: Request | None = None
    for planned in ordered:
        is_same = last is not None and planned.request.token_ids == last.token_ids
        if len(planned.spans) == 1 and not is_same:
            families.append([])
        families[-1].append(planned)
        last = planned.request

    def most_new_tokens(family: list[PlannedRequest]) -> int:
        return max(planned.request.limit(max_new_tokens) for planned in family)

    for family in sorted(families, key=most_new_tokens, reverse=True):
        yield from family
