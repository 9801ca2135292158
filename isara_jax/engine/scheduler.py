"""Prompts into groups, each for one set of slots: what shares its beginning together.

The groups of a step follow from all of its prompts, so that a run which was resumed
with some of them done decodes the others in programs of the same shapes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax

from isara_jax.engine.kv_cache import (
    LayerBlocks,
    cache_capacity,
    position_bytes,
    round_up,
    rows_within,
)
from isara_jax.engine.prefill import PrefillSpans, common_length, plan_spans
from isara_jax.engine.request import Request, validate_length
from isara_jax.models.attention import attention_backend
from isara_jax.runtime import Mesh, platform_of
from isara_jax.runtime.hardware import free_bytes

# A beginning is shared by the slots if it has so many tokens, and a longer one is worth
# a group of its own if it has so many more.
LEAST_SHARED = 64
# A prompt alone has an empty slot beside it, if it may: for a cache of a single row XLA
# on CPU copies all of it every step, and its products with one row use one core.
LEAST_ROWS = 2
# The room for a shared beginning grows in these steps.
ROOM_STEP = 128


def useful_slots(platform: str | None = None) -> int:
    """Returns how many slots are worth having on the platform, if memory has room.

    It is the default one unless given.
    """
    return 32 if (platform or jax.default_backend()) == "cpu" else 256


Planned = tuple[Request, PrefillSpans]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Prompts of which the first `shared` tokens are equal, in the order of decoding.

    `spans` say how each is run. `rows` slots are decoded at once, each with room for
    `capacity` positions beyond the shared ones.
    """

    prompts: tuple[Request, ...]
    spans: tuple[PrefillSpans, ...]
    shared: int
    rows: int
    capacity: int

    @property
    def longest(self) -> int:
        """The tokens of the longest prompt."""
        return max(len(prompt.token_ids) for prompt in self.prompts)

    @property
    def shared_room(self) -> int:
        """The positions kept for the shared beginning."""
        return round_up(self.shared, ROOM_STEP)


def groups(
    prompts: Sequence[Request],
    *,
    slots: int,
    row_multiple: int,
    max_new_tokens: int,
    context: int,
) -> tuple[Group, ...]:
    """Cuts the prompts into groups of at most `slots` rows, a multiple of the given.

    Raises:
      InputError: a prompt and its continuation do not fit the model's context.
    """
    for prompt in prompts:
        validate_length(prompt, new=prompt.limit(max_new_tokens), context=context)
    if not prompts:
        return ()
    most = rows_within(slots, multiple=row_multiple)
    ordered = sorted(prompts, key=lambda prompt: prompt.sort_key)
    return tuple(
        _group(
            members,
            most=most,
            row_multiple=row_multiple,
            max_new_tokens=max_new_tokens,
        )
        for members in _clusters(ordered, least=most)
    )


def _clusters(ordered: Sequence[Request], *, least: int) -> Iterator[list[Request]]:
    """Yields runs of `least` or more that share far more than all do, then the rest."""
    shared = _shared(ordered)
    rest: list[Request] = []
    for run in _runs(ordered, longer_than=shared + LEAST_SHARED):
        if least <= len(run) < len(ordered):
            yield from _clusters(run, least=least)
        else:
            rest += run
    if rest:
        yield rest


def _runs(ordered: Sequence[Request], *, longer_than: int) -> Iterator[list[Request]]:
    run: list[Request] = []
    for prompt in ordered:
        if run and common_length(run[-1].token_ids, prompt.token_ids) < longer_than:
            yield run
            run = []
        run.append(prompt)
    yield run


def _shared(ordered: Sequence[Request]) -> int:
    """Counts the tokens with which all begin; each keeps one of its own."""
    first, last = ordered[0].token_ids, ordered[-1].token_ids
    count = min(common_length(first, last), min(len(p.token_ids) for p in ordered) - 1)
    return count if count >= LEAST_SHARED and len(ordered) > 1 else 0


def _longest_first(
    planned: Sequence[Planned], *, max_new_tokens: int
) -> Iterator[Planned]:
    """Puts prompts that may go on for long before others, where that costs no reuse.

    A long text that begins last would be decoded alone. Prompts that go on from one
    another stay together, and in their order.
    """
    families: list[list[Planned]] = []
    before: Request | None = None
    for prompt, spans in planned:
        same = before is not None and prompt.token_ids == before.token_ids
        if len(spans) == 1 and not same:
            families.append([])
        families[-1].append((prompt, spans))
        before = prompt

    def longest(family: list[Planned]) -> int:
        return max(prompt.limit(max_new_tokens) for prompt, _ in family)

    for family in sorted(families, key=longest, reverse=True):
        yield from family


def _group(
    members: Sequence[Request], *, most: int, row_multiple: int, max_new_tokens: int
) -> Group:
    shared = _shared(members)
    own = max(len(p.token_ids) + p.limit(max_new_tokens) for p in members) - shared
    spans = plan_spans([prompt.token_ids for prompt in members])
    planned = list(zip(members, spans, strict=True))
    ordered = list(_longest_first(planned, max_new_tokens=max_new_tokens))
    return Group(
        prompts=tuple(prompt for prompt, _ in ordered),
        spans=tuple(spans for _, spans in ordered),
        shared=shared,
        rows=min(most, round_up(max(len(members), LEAST_ROWS), row_multiple)),
        capacity=cache_capacity(own),
    )


# Of the free memory, what slots may take.
SHARE_OF_MEMORY = 0.7


def rows_that_fit(
    stack: LayerBlocks, group: Group, *, mesh: Mesh, free: int | None = None
) -> int:
    """Returns how many of the group's slots the free memory has room for, at least 1.

    A part of it is left to what programs need while they run. `free` are the bytes of
    a device, which are asked for unless given.
    """
    free = free_bytes() if free is None else free
    if free is None:
        return group.rows
    config = stack.model.config
    position = position_bytes(stack, attention_backend(mesh))
    # A row's logits, and which tokens it has seen; sampling takes copies of both.
    row = position * group.capacity + 4 * 5 * config.vocab_size
    whole = position * (group.shared_room + group.capacity + group.longest)
    devices = mesh.shape["data"] if platform_of(mesh) != "cpu" else 1
    fitting = int(SHARE_OF_MEMORY * free - whole) // row * devices
    return max(1, min(group.rows, fitting))
