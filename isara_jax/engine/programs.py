"""The engine's programs at the largest shapes of a call, on abstract arrays.

They are the programs that `Engine.generate` runs, with the shapes and shardings that it
gives them. They can be lowered and compiled; nothing of the model's size is allocated.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from isara_jax.engine.beam import BeamState, constrain_beams, search, start
from isara_jax.engine.decode import decode, empty_state
from isara_jax.engine.kv_cache import LayerBlocks, make_layer_blocks
from isara_jax.engine.padded_batch import plan
from isara_jax.engine.prefill import (
    chunk_widths,
    chunks_for,
    empty_row,
    prefill_chunk,
    prefix_cache_len,
)
from isara_jax.engine.request import Request
from isara_jax.engine.sampling import SamplingParams
from isara_jax.engine.scheduler import (
    PrefixGroup,
    plan_groups,
    rows_that_fit,
    useful_slots,
)
from isara_jax.models import Decoder
from isara_jax.runtime import (
    Mesh,
    abstract_keys,
    abstract_on,
    abstract_outputs,
    abstract_replicated,
    abstract_replicated_tree,
    abstract_sharded,
    bytes_on_device,
    platform_of,
)


@dataclass(frozen=True, kw_only=True)
class EngineProgram:
    """A program of the engine, before it is lowered.

    Attributes:
      unit: what a run of the program gives.
      arguments: its abstract arrays by name, besides the model.
      resident: those that are on the devices meanwhile.
      rows: prompts, or slots, that a run computes.
      start, end: a run computes these positions of each row, and attends to those
        before `start` as well. A decode step computes one.
      beams: continuations of each row that it computes.
      lower: traces and lowers the program.
    """

    name: str
    kind: Literal["prefill", "decode"]
    unit: str
    arguments: Mapping[str, Any]
    resident: Mapping[str, Any]
    rows: int
    start: int
    end: int
    beams: int = 1
    lower: Callable[[], jax.stages.Lowered]


@dataclass(frozen=True, kw_only=True)
class LargestCall:
    """A call of `Engine.generate` in which all prompts are of the greatest length.

    Attributes:
      model: its abstract arrays, with their shardings on the mesh.
      slots: 0: as many as suit the platform.
      requests: how many there are, of `prompt_len` tokens each.
      free: bytes of a device that the model leaves; None: unknown.
    """

    model: Decoder
    mesh: Mesh
    sampling_params: SamplingParams
    slots: int
    requests: int
    prompt_len: int
    context: int
    free: int | None

    def programs(self) -> Iterator[EngineProgram]:
        """Yields the largest prefill, and the decode step."""
        if self.sampling_params.beams > 1:
            return self._beam_programs()
        return self._slot_programs()

    @cached_property
    def layer_blocks(self) -> LayerBlocks:
        """The abstract layers in the blocks that the engine makes of them."""
        # Devices on CPU are parts of this host, which says itself what it has left.
        free = None if platform_of(self.mesh) == "cpu" else self.free
        make = partial(make_layer_blocks, mesh=self.mesh, free=free)
        blocks = jax.eval_shape(make, self.model).blocks
        return LayerBlocks(
            model=self.model,
            blocks=tuple(abstract_on(block, self.mesh) for block in blocks),
        )

    @cached_property
    def copied_layers(self) -> dict[str, Any]:
        """The layers that the engine copies into blocks, beside the model."""
        blocks = self.layer_blocks.blocks
        return {} if len(blocks) == 1 else {"layers, copied": blocks}

    @cached_property
    def group(self) -> PrefixGroup:
        """The requests' plan, with as many slots as memory can hold."""
        plan_within = partial(
            plan_groups,
            self._prompts(),
            row_multiple=self.mesh.shape["data"],
            max_new_tokens=self.sampling_params.max_new_tokens,
            context=self.context,
        )
        (group,) = plan_within(slots=self._wanted_slots)
        if self.free is None:
            return group
        free = self.free - bytes_on_device(self.copied_layers)
        rows = rows_that_fit(self.layer_blocks, group, mesh=self.mesh, free=free)
        return group if rows >= group.rows else plan_within(slots=rows)[0]

    @property
    def _wanted_slots(self) -> int:
        return self.slots or useful_slots(platform_of(self.mesh))

    def _prompts(self) -> list[Request]:
        """Returns prompts that share nothing."""
        return [
            Request(
                id=str(index),
                sample_index=index,
                token_ids=(index,) * self.prompt_len,
            )
            for index in range(self.requests)
        ]

    def _slot_programs(self) -> Iterator[EngineProgram]:
        mesh, params, group = self.mesh, self.sampling_params, self.group
        longest = max(group.longest_prompt, group.max_len)
        make_row = partial(
            empty_row, max_len=prefix_cache_len(longest, mesh), mesh=mesh
        )
        make_state = partial(
            empty_state,
            rows=group.rows,
            max_len=group.max_len,
            max_shared_len=group.max_shared_len,
            new_tokens=params.max_new_tokens,
            mesh=mesh,
        )
        kv_row = abstract_outputs(make_row, self.layer_blocks)
        state = abstract_outputs(make_state, self.layer_blocks)
        prefix_cache, slots = {"prefix cache": kv_row}, _state_parts(state)
        scalar = abstract_replicated((), jnp.int32, mesh)
        end = group.longest_prompt
        width = max(chunks_for(end, widths=chunk_widths(mesh)))
        yield EngineProgram(
            name=f"prompt, {width} positions of {end}",
            kind="prefill",
            unit="chunk",
            arguments=prefix_cache,
            resident=slots | self.copied_layers,
            rows=1,
            start=max(0, end - width),
            end=end,
            lower=lambda: prefill_chunk.lower(
                self.layer_blocks,
                abstract_replicated((1, width), jnp.int32, mesh),
                kv_row,
                start=scalar,
                last=scalar,
                kv_len=kv_row.kv_len(end),
                mesh=mesh,
            ),
        )
        yield EngineProgram(
            name=f"decoding, {group.rows} slots of {group.max_len}",
            kind="decode",
            unit="token of every slot",
            arguments=slots,
            resident=prefix_cache | self.copied_layers,
            rows=group.rows,
            start=group.max_len - 1,
            end=group.max_len,
            lower=lambda: decode.lower(
                self.layer_blocks,
                state,
                abstract_replicated_tree(params.traced, mesh),
                eos=abstract_replicated((1,), jnp.int32, mesh),
                static=params.static,
                steps=scalar,
                mesh=mesh,
            ),
        )

    def _beam_programs(self) -> Iterator[EngineProgram]:
        mesh, params = self.mesh, self.sampling_params
        batch, *_ = plan(
            self._prompts(),
            slots=self._wanted_slots // params.beams,
            row_multiple=mesh.shape["data"],
            max_new_tokens=params.max_new_tokens,
            context=self.context,
        )
        rows, length = batch.shape.rows, batch.shape.prompt
        tokens = abstract_sharded((rows, length), jnp.int32, mesh)
        begin = partial(
            start, beams=params.beams, new_tokens=params.max_new_tokens, mesh=mesh
        )
        shapes = jax.eval_shape(begin, self.layer_blocks, tokens, tokens)
        state = abstract_outputs(partial(_empty_beams, shapes, mesh))
        yield EngineProgram(
            name=f"prompts of beams, {rows} rows of {length}",
            kind="prefill",
            unit="batch",
            arguments={},
            resident=self.copied_layers,
            rows=rows,
            start=0,
            end=length,
            lower=lambda: jax.jit(begin).lower(self.layer_blocks, tokens, tokens),
        )
        yield EngineProgram(
            name=f"beam search, {rows} x {params.beams} beams",
            kind="decode",
            unit="token of every beam",
            arguments=_state_parts(state),
            resident=self.copied_layers,
            rows=rows,
            start=length,
            end=length + 1,
            beams=params.beams,
            lower=lambda: search.lower(
                self.layer_blocks,
                state,
                abstract_replicated_tree(params.traced, mesh),
                prompts=(tokens, tokens),
                keys=abstract_keys((rows,), mesh),
                eos=abstract_replicated((1,), jnp.int32, mesh),
                last=abstract_replicated((), jnp.int32, mesh),
                static=params.static,
            ),
        )


def _state_parts(state: Any) -> dict[str, Any]:
    """Divides the arrays of a decode batch into its KV cache and the rest."""
    cached = {id(leaf) for leaf in jax.tree.leaves(state.cache)}
    others = [leaf for leaf in jax.tree.leaves(state) if id(leaf) not in cached]
    return {"KV cache": state.cache, "texts and logits": others}


def _empty_beams(shapes: BeamState, mesh: Mesh) -> BeamState:
    """Returns an empty state of beams with its shardings."""
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return constrain_beams(empty, mesh)
