"""The programs that write, from shapes alone: prompts and slots, or beams."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp

from isara_jax.engine import (
    BeamState,
    LayerBlocks,
    PrefixGroup,
    Request,
    chunk_widths,
    chunks_for,
    constrain_beams,
    decode,
    empty_row,
    empty_state,
    make_layer_blocks,
    plan,
    plan_groups,
    prefill_chunk,
    prefix_cache_len,
    rows_that_fit,
    search,
    start,
    useful_slots,
)
from isara_jax.fit.abstract_arrays import key, made, over_data, replicated, whole
from isara_jax.fit.bounds import chunk_work, rows_work, token_work
from isara_jax.fit.program import Program, frozen_base_bytes
from isara_jax.fit.request import FitRequest, bytes_on_device
from isara_jax.runtime import Mesh, abstract_on, platform_of

# A question that is answered, or the lead of one that is drafted, in tokens: a prompt
# has it after its demonstrations.
OPEN_TURN = 128


def slot_programs(setting: FitRequest) -> Iterator[Program]:
    """Yields a chunk of a prompt on the prefix_cache, and a token in every slot."""
    mesh, sampling_params = setting.mesh, setting.sampling_params
    layer_blocks, group = _stack(setting), planned_group(setting)
    reached = max(group.longest_prompt, group.max_len)
    make_prefix_cache = partial(
        empty_row, max_len=prefix_cache_len(reached, mesh), mesh=mesh
    )
    make_slots = partial(
        empty_state,
        rows=group.rows,
        max_len=group.max_len,
        max_shared_len=group.max_shared_len,
        new_tokens=sampling_params.max_new_tokens,
        mesh=mesh,
    )
    prefix_cache, state = (
        made(make_prefix_cache, layer_blocks),
        made(make_slots, layer_blocks),
    )
    slots = {
        "KV cache": bytes_on_device(state.cache),
        "texts and logits": bytes_on_device(state) - bytes_on_device(state.cache),
    }
    held = {"parameters": bytes_on_device(setting.weights)}
    beside = _copied(layer_blocks) | frozen_base_bytes(setting)
    width = max(chunks_for(group.longest_prompt, widths=chunk_widths(mesh)))
    number = whole((), jnp.int32, mesh)
    yield Program(
        name=f"prompt, {width} positions of {group.longest_prompt}",
        unit="chunk",
        parts=held | {"path": bytes_on_device(prefix_cache)},
        beside=slots | beside,
        work=chunk_work(setting, width=width, end=group.longest_prompt),
        lower=lambda: prefill_chunk.lower(
            layer_blocks,
            whole((1, width), jnp.int32, mesh),
            prefix_cache,
            start=number,
            last=number,
            kv_len=prefix_cache.kv_len(group.longest_prompt),
            mesh=mesh,
        ),
    )
    yield Program(
        name=f"decoding, {group.rows} slots of {group.max_len}",
        unit="token of every slot",
        parts=held | slots,
        beside={"path": bytes_on_device(prefix_cache)} | beside,
        work=token_work(setting, rows=group.rows, length=group.max_len - 1),
        lower=lambda: decode.lower(
            layer_blocks,
            state,
            replicated(sampling_params.traced, mesh),
            eos=whole((1,), jnp.int32, mesh),
            static=sampling_params.static,
            steps=number,
            mesh=mesh,
        ),
    )


def beam_programs(setting: FitRequest) -> Iterator[Program]:
    """Yields the prompts of a batch, and a token of every beam."""
    mesh, sampling_params, layer_blocks = (
        setting.mesh,
        setting.sampling_params,
        _stack(setting),
    )
    slots = setting.slots or useful_slots(platform_of(mesh))
    batch, *_ = plan(
        _prompts(setting),
        slots=slots // sampling_params.beams,
        row_multiple=mesh.shape["data"],
        max_new_tokens=sampling_params.max_new_tokens,
        context=setting.shape.context,
    )
    rows, length = batch.shape.rows, batch.shape.prompt
    tokens = over_data(jax.ShapeDtypeStruct((rows, length), jnp.int32), mesh)
    begin = partial(
        start,
        beams=sampling_params.beams,
        new_tokens=sampling_params.max_new_tokens,
        mesh=mesh,
    )
    state = made(
        partial(_laid_out, jax.eval_shape(begin, layer_blocks, tokens, tokens), mesh)
    )
    held = {"parameters": bytes_on_device(setting.weights)}
    beside = _copied(layer_blocks) | frozen_base_bytes(setting)
    yield Program(
        name=f"prompts of beams, {rows} rows of {length}",
        unit="batch",
        parts=held,
        beside=beside,
        work=rows_work(setting, rows=rows, length=length),
        lower=lambda: jax.jit(begin).lower(layer_blocks, tokens, tokens),
    )
    cache = bytes_on_device(state.cache)
    others = {"texts and logits": bytes_on_device(state) - cache}
    yield Program(
        name=f"beam search, {rows} x {sampling_params.beams} beams",
        unit="token of every beam",
        parts=held | {"KV cache": cache} | others,
        beside=beside,
        work=token_work(setting, rows=rows, length=length, beams=sampling_params.beams),
        lower=lambda: search.lower(
            layer_blocks,
            state,
            replicated(sampling_params.traced, mesh),
            prompts=(tokens, tokens),
            keys=key((rows,), mesh),
            eos=whole((1,), jnp.int32, mesh),
            last=whole((), jnp.int32, mesh),
            static=sampling_params.static,
        ),
    )


def planned_group(setting: FitRequest) -> PrefixGroup:
    """Plans slots as the engine does, for as many as the memory has room for."""
    mesh, memory = setting.mesh, setting.machine.memory
    within = partial(
        plan_groups,
        _prompts(setting),
        row_multiple=mesh.shape["data"],
        max_new_tokens=setting.sampling_params.max_new_tokens,
        context=setting.shape.context,
    )
    (group,) = within(slots=setting.slots or useful_slots(platform_of(mesh)))
    if memory is None:
        return group
    layer_blocks = _stack(setting)
    held = bytes_on_device(setting.weights) + sum(_copied(layer_blocks).values())
    room = rows_that_fit(layer_blocks, group, mesh=mesh, free=memory - held)
    return group if room >= group.rows else within(slots=room)[0]


def _laid_out(shapes: BeamState, mesh: Mesh) -> BeamState:
    """Returns an empty state of beams in its places."""
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return constrain_beams(empty, mesh)


def _prompts(setting: FitRequest) -> list[Request]:
    """Returns as many prompts as a step has, of the greatest length."""
    context, new = setting.shape.context, setting.sampling_params.max_new_tokens
    length = max(1, min(setting.demo_tokens + OPEN_TURN, context - new))
    return [
        Request(id=str(number), sample_index=number, token_ids=(number,) * length)
        for number in range(setting.prompts)
    ]


def _copied(layer_blocks: LayerBlocks) -> dict[str, int]:
    """Returns what layers in blocks of their own take beside the model."""
    if len(layer_blocks.blocks) == 1:
        return {}
    return {"layers, copied": bytes_on_device(layer_blocks.blocks)}


def _stack(setting: FitRequest) -> LayerBlocks:
    """Returns the layers as the engine cuts them, in their places."""
    mesh, weights, memory = setting.mesh, setting.weights, setting.machine.memory
    free = None
    # Devices on CPU are parts of this host, which says itself what it has left.
    if memory is not None and platform_of(mesh) != "cpu":
        free = memory - bytes_on_device(weights)
    span = jax.eval_shape(partial(make_layer_blocks, mesh=mesh, free=free), weights)
    blocks = tuple(abstract_on(block, mesh) for block in span.blocks)
    return LayerBlocks(model=weights, blocks=blocks)
