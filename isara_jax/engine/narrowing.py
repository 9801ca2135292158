"""Fewer rows for the last texts: a slot costs on CPU what it costs, empty or not."""

from dataclasses import fields
from functools import partial
from typing import cast

import jax
import numpy as np
from jaxtyping import Array, Int

from isara_jax.engine.continuous import SlotState, laid_out
from isara_jax.engine.flash_slots import FlashSlots
from isara_jax.engine.plain_slots import PlainSlots
from isara_jax.engine.row_slots import RowSlots
from isara_jax.runtime.mesh import Mesh

# The rows are cut once, to a share that is worth compiling for: at 32 slots of 832
# positions a step of SmolLM2-135M took 114 ms on 2 cores, at 8 slots 43 ms.
NARROWING = 4
# XLA's products have the same bits with 8 rows and more, but not with 4 or fewer: what
# a resumed run writes must not depend on when its slots became few.
LEAST_NARROW = 8


def narrow_rows(state: SlotState, mesh: Mesh) -> int | None:
    """Returns how many rows are enough for the last texts, if fewer are worth while.

    Kernels of accelerators skip empty slots themselves.
    """
    rows = state.done.shape[0] // NARROWING
    on_cpu = jax.default_backend() == "cpu" and isinstance(state.cache, RowSlots)
    if on_cpu and rows >= LEAST_NARROW and rows % mesh.shape["data"] == 0:
        return rows
    return None


def rows_to_keep(held: np.ndarray, *, count: int) -> np.ndarray:
    """Returns `count` rows, those that are held first, in their order."""
    return np.argsort(~held, kind="stable")[:count]


@partial(jax.jit, static_argnames=("mesh",))
def narrowed(state: SlotState, kept: Int[Array, " b"], *, mesh: Mesh) -> SlotState:
    """Returns slots, of a kind that may be narrow, that hold the kept rows only."""

    def pick(array: Array) -> Array:
        return array[kept]

    parts = {
        field.name: jax.tree.map(pick, getattr(state, field.name))
        for field in fields(state)
        if field.name != "cache"
    }
    cache = cast(PlainSlots | FlashSlots, state.cache).picked(kept)
    return laid_out(SlotState(cache=cache, **parts), mesh)
