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

from isara_jax.engine.beam import beam_backend, empty_beams, search
from isara_jax.engine.decode import decode, empty_state
from isara_jax.engine.kv_cache import LayerBlocks, make_layer_blocks
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
    abstract_on,
    abstract_outputs,
    abstract_replicated,
    abstract_replicated_tree,
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
        make_row = partial(
            empty_row,
            max_len=prefix_cache_len(self._longest, self.mesh),
            mesh=self.mesh,
            backend=beam_backend(self.mesh) if self._beams > 1 else None,
        )
        kv_row = abstract_outputs(make_row, self.layer_blocks)
        state = abstract_outputs(self._empty_batch(), self.layer_blocks)
        prefix_cache, slots = {"prefix cache": kv_row}, _state_parts(state)
        yield self._prefill(kv_row, resident=slots | self.copied_layers)
        yield self._decode(state, resident=prefix_cache | self.copied_layers)

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
            beams=self._beams,
        )
        (group,) = plan_within(slots=self._wanted_slots)
        if self.free is None:
            return group
        free = self.free - bytes_on_device(self.copied_layers)
        rows = rows_that_fit(self.layer_blocks, group, mesh=self.mesh, free=free)
        return group if rows >= group.rows else plan_within(slots=rows * self._beams)[0]

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

    @property
    def _beams(self) -> int:
        return self.sampling_params.beams

    @property
    def _longest(self) -> int:
        return max(self.group.longest_prompt, self.group.max_len)

    def _empty_batch(self) -> Callable[[LayerBlocks], Any]:
        group = self.group
        return partial(
            partial(empty_beams, beams=self._beams) if self._beams > 1 else empty_state,
            rows=group.rows,
            max_len=group.max_len,
            max_shared_len=group.max_shared_len,
            new_tokens=self.sampling_params.max_new_tokens,
            mesh=self.mesh,
        )

    def _prefill(self, kv_row: Any, *, resident: Mapping[str, Any]) -> EngineProgram:
        mesh, end = self.mesh, self.group.longest_prompt
        width = max(chunks_for(end, widths=chunk_widths(mesh)))
        scalar = abstract_replicated((), jnp.int32, mesh)
        return EngineProgram(
            name=f"prompt, {width} positions of {end}",
            kind="prefill",
            unit="chunk",
            arguments={"prefix cache": kv_row},
            resident=resident,
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

    def _decode(self, state: Any, *, resident: Mapping[str, Any]) -> EngineProgram:
        mesh, params, group = self.mesh, self.sampling_params, self.group
        program, name = decode, f"decoding, {group.rows} slots of {group.max_len}"
        unit, end = "token of every slot", group.max_len
        if self._beams > 1:
            program, name = search, f"beam search, {group.rows} x {self._beams} beams"
            unit, end = "token of every beam", group.longest_prompt + 1
        return EngineProgram(
            name=name,
            kind="decode",
            unit=unit,
            arguments=_state_parts(state),
            resident=resident,
            rows=group.rows,
            start=end - 1,
            end=end,
            beams=self._beams,
            lower=lambda: program.lower(
                self.layer_blocks,
                state,
                abstract_replicated_tree(params.traced, mesh),
                eos=abstract_replicated((1,), jnp.int32, mesh),
                static=params.static,
                steps=abstract_replicated((), jnp.int32, mesh),
                mesh=mesh,
            ),
        )


def _state_parts(state: Any) -> dict[str, Any]:
    """Divides the arrays of a decode batch into its KV caches and the rest."""
    caches = [state.cache, getattr(state, "branches", None)]
    cached = {id(leaf) for leaf in jax.tree.leaves(caches)}
    others = [leaf for leaf in jax.tree.leaves(state) if id(leaf) not in cached]
    return {"KV cache": caches, "texts and logits": others}
