"""Chooses the implementation of attention by platform, dtype and shapes.

CPU runs `attention.xla`, and so does every platform whose kernel does not support the
shapes. NVIDIA and TPU run the kernels that JAX ships, through `attention.nvidia` and
`attention.tpu`. The choice is made before tracing: no kernel is tried and caught.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
from jaxtyping import Array, Float, Int

from isara_jax.models.attention import nvidia as nvidia_attention, tpu as tpu_attention
from isara_jax.models.attention.xla import xla_causal_attention
from isara_jax.runtime import LogicalArray, Mesh, logical_shard_map

Kind = Literal["xla", "nvidia", "tpu"]

# By the name that JAX has for the platform.
KINDS: dict[str, Kind] = {"gpu": "nvidia", "cuda": "nvidia", "tpu": "tpu"}


@dataclass(frozen=True)
class AttentionBackend:
    """The implementation of attention, and the mesh over which it is sharded.

    Batch and heads are sharded. Without a mesh the kernels run on one device.
    """

    kind: Kind
    mesh: Mesh | None = None

    def heads_axis(self, kv_heads: int) -> str:
        """Returns the logical axis of heads, sharded if the mesh divides the KV heads.

        Query heads stay on the device of the KV head that they read.
        """
        replicated = self.mesh is not None and kv_heads % self.mesh.shape["model"]
        return "head_dim" if replicated else "kv_heads"

    def run(
        self,
        function: Callable[..., tuple[Any, ...]],
        *arrays: Array,
        axes: Sequence[Sequence[str]],
        outputs: Sequence[LogicalArray],
    ) -> tuple[Any, ...]:
        """Runs a function on each device's shards of the arrays.

        `axes` are the logical axes of each array, `outputs` those and the shapes of
        the results.
        """
        if self.mesh is None:
            return function(*arrays)
        shapes = [array.shape for array in arrays]
        inputs = tuple(zip(axes, shapes, strict=True))
        sharded = logical_shard_map(
            function, mesh=self.mesh, inputs=inputs, outputs=outputs
        )
        return sharded(*arrays)


XLA = AttentionBackend("xla")


def attention_backend(mesh: Mesh | None) -> AttentionBackend:
    """Returns the backend of the mesh's platform, or of JAX's default one.

    The compiler cannot partition a kernel, so without a mesh several devices run XLA.
    """
    if mesh is not None:
        return AttentionBackend(KINDS.get(mesh.devices.flat[0].platform, "xla"), mesh)
    if jax.device_count() > 1:
        return XLA
    return AttentionBackend(KINDS.get(jax.default_backend(), "xla"))


def causal_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K T H"],
    v: Float[Array, "B K T H"],
    *,
    segments: Int[Array, "B T"],
    window: int | None,
    backend: AttentionBackend | None = None,
) -> Float[Array, "B T N H"]:
    """Attends from each position to those up to it that have its segment id.

    With a window, only to the last so many of them, itself included. The backend is the
    platform's own unless one is given.
    """
    backend = attention_backend(None) if backend is None else backend

    if backend.kind == "xla" or (
        backend.kind == "nvidia"
        and not nvidia_attention.supports_causal(q, window=window)
    ):
        return xla_causal_attention(q, k, v, segments=segments, window=window)

    def attended(q: Array, k: Array, v: Array, segments: Array) -> tuple[Array]:
        if backend.kind == "nvidia":
            return (nvidia_attention.causal_attention(q, k, v, segments=segments),)
        return (
            tpu_attention.causal_attention(q, k, v, segments=segments, window=window),
        )

    heads = backend.heads_axis(k.shape[1])
    queries = ("batch", "time", heads, "head_dim")
    keys = ("batch", heads, "time", "head_dim")
    (mixed,) = backend.run(
        attended,
        *(q, k, v, segments),
        axes=(queries, keys, keys, ("batch", "time")),
        outputs=((queries, q.shape),),
    )
    return mixed
