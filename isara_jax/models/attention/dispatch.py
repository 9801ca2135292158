"""The one seam behind which attention is chosen by platform (DESIGN 4).

CPU runs the plain form of `plain_attention`, and so does every platform where a kernel
does not take the shapes. NVIDIA and TPU run the kernels that JAX ships, through
`nvidia_attention` and `tpu_attention`. Which one runs follows from the platform, dtype
and shapes alone: nothing is tried and caught.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
from jaxtyping import Array, Float, Int

from isara_jax.models.attention import nvidia as nvidia_attention, tpu as tpu_attention
from isara_jax.models.attention.xla import xla_causal_attention
from isara_jax.runtime import LogicalArray, Mesh, logical_shard_map

Kind = Literal["plain", "nvidia", "tpu"]

# By the platform that JAX names.
KINDS: dict[str, Kind] = {"gpu": "nvidia", "cuda": "nvidia", "tpu": "tpu"}


@dataclass(frozen=True)
class AttentionBackend:
    """Which kernels run, and the mesh over whose shards they do: batch and heads.

    Without a mesh they run where the program does.
    """

    kind: Kind
    mesh: Mesh | None = None

    def heads_word(self, kv_heads: int) -> str:
        """Returns the word of an axis of heads, split where the mesh divides KV heads.

        Query heads stay with the KV head that they read.
        """
        whole = self.mesh is not None and kv_heads % self.mesh.shape["model"]
        return "head_dim" if whole else "kv_heads"

    def run(
        self,
        function: Callable[..., tuple[Any, ...]],
        *arrays: Array,
        words: Sequence[Sequence[str]],
        outputs: Sequence[LogicalArray],
    ) -> tuple[Any, ...]:
        """Runs a function on each device's shards of the arrays, named by the words."""
        if self.mesh is None:
            return function(*arrays)
        shapes = [array.shape for array in arrays]
        inputs = tuple(zip(words, shapes, strict=True))
        cut = logical_shard_map(
            function, mesh=self.mesh, inputs=inputs, outputs=outputs
        )
        return cut(*arrays)


XLA = AttentionBackend("plain")


def attention_backend(mesh: Mesh | None) -> AttentionBackend:
    """Returns the kernels of the mesh's platform, or of the default one without a mesh.

    The compiler cannot cut a kernel for several devices, so without a mesh to cut by
    there must be one device only.
    """
    if mesh is not None:
        return AttentionBackend(KINDS.get(mesh.devices.flat[0].platform, "plain"), mesh)
    if jax.device_count() > 1:
        return XLA
    return AttentionBackend(KINDS.get(jax.default_backend(), "plain"))


def causal_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K T H"],
    v: Float[Array, "B K T H"],
    *,
    segments: Int[Array, "B T"],
    window: int | None,
    backend: AttentionBackend | None = None,
) -> Float[Array, "B T N H"]:
    """Attends to the positions up to one's own that have one's own segment id.

    With a window, to the last so many of them only, one's own among these. `backend`
    are those of the platform unless given.
    """
    backend = attention_backend(None) if backend is None else backend

    if backend.kind == "plain" or (
        backend.kind == "nvidia"
        and not nvidia_attention.supports_rows(q, window=window)
    ):
        return xla_causal_attention(q, k, v, segments=segments, window=window)

    def attended(q: Array, k: Array, v: Array, segments: Array) -> tuple[Array]:
        if backend.kind == "nvidia":
            return (nvidia_attention.causal_attention(q, k, v, segments=segments),)
        return (
            tpu_attention.causal_attention(q, k, v, segments=segments, window=window),
        )

    heads = backend.heads_word(k.shape[1])
    queries = ("batch", "time", heads, "head_dim")
    keys = ("batch", heads, "time", "head_dim")
    (mixed,) = backend.run(
        attended,
        *(q, k, v, segments),
        words=(queries, keys, keys, ("batch", "time")),
        outputs=((queries, q.shape),),
    )
    return mixed
