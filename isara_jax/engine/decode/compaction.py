"""Batch compaction: the last requests of a batch are decoded in fewer slots.

On CPU an empty slot costs as much as one in use. What a resumed run writes must not
depend on when its slots emptied, so compaction may change no bit. Whether a decode
program with fewer rows computes the same bits is a property of XLA's products: with
SmolLM2 it did down to 8 rows, and not with 4. So the first time a program is compacted,
it decodes in all slots as well, and the caller keeps the answer for as long as the
program lives.
"""

import math
from collections.abc import Callable, Hashable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from isara_jax.engine.decode.batch import B, DecodeBatch
from isara_jax.engine.kv_cache import DenseKVCache
from isara_jax.runtime import Mesh

# A batch is compacted once, to a share that is worth compiling for: at 32 slots of 832
# positions a step of SmolLM2-135M took 114 ms on 2 cores, at 8 slots 43 ms.
COMPACTION_FACTOR = 4
MIN_COMPACTED_ROWS = 8


def rows_to_keep(
    state: DecodeBatch, occupied: np.ndarray, *, mesh: Mesh
) -> np.ndarray | None:
    """Returns the rows of a smaller batch that holds all occupied slots.

    They are fewer than all by `COMPACTION_FACTOR`, the occupied ones first, each kind
    in its order. None: compaction does not pay, or too many slots are occupied. Kernels
    of accelerators skip empty slots themselves.
    """
    count = state.done.shape[0] // COMPACTION_FACTOR
    # Beams of a prompt are rows of the model's products as well.
    rows = count * math.prod(state.logits.shape[1:-1])
    on_cpu = jax.default_backend() == "cpu" and isinstance(state.cache, DenseKVCache)
    if not on_cpu or rows < MIN_COMPACTED_ROWS or count % mesh.shape["data"]:
        return None
    if occupied.sum() > count:
        return None
    return np.argsort(~occupied, kind="stable")[:count]


def decode_compacted(
    state: B,
    kept: np.ndarray,
    *,
    decode: Callable[[B], B],
    has_parity: bool | None,
    mesh: Mesh,
) -> tuple[B, bool]:
    """Decodes in the kept rows only, if that computes the same bits as all rows.

    Args:
      state: all rows.
      kept: the rows that stay, of `rows_to_keep`.
      decode: the decode program.
      has_parity: whether it does; None decodes both and compares their bits.
      mesh: the mesh of the state.

    Returns:
      The next state, and whether it holds the kept rows only. The second is also the
      parity that the caller passes next time.
    """
    if has_parity is False:
        return decode(state), False
    rows = jnp.asarray(kept)
    narrow = decode(compact(state, rows, mesh=mesh))
    if has_parity is None:
        wide = decode(state)
        if not _has_bits_of(narrow, wide, rows):
            return wide, False
    return narrow, True


def program_key(state: DecodeBatch, *static: Hashable) -> Hashable:
    """Returns what a decode program is compiled for: shapes, and static arguments."""
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(state))
    return (shapes, *static)


@partial(jax.jit, static_argnames=("mesh",))
def compact(state: B, kept: Int[Array, " b"], *, mesh: Mesh) -> B:
    """Returns a state that holds the kept rows only."""
    return state.take(kept).constrain(mesh)


@jax.jit
def _has_bits_of(narrow: B, wide: B, kept: Int[Array, " b"]) -> Bool[Array, ""]:
    return jnp.array_equal(narrow.logits, wide.logits[kept]) & jnp.array_equal(
        narrow.token_log_probabilities, wide.token_log_probabilities[kept]
    )
