"""LLaMA (Touvron et al. 2023) as an immutable Flax NNX value.

RMSNorm before each half of a layer, rotary positions, grouped-query attention, SwiGLU,
tied or untied output head. Layers are stacked along a leading axis and scanned by
`models.decoder`. Parameters are kept as [in, out], their axes named in words.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from isara_jax.models.decoder import Attend
from isara_jax.models.layers import rms_norm, rotary_angles, rotate


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """The numbers that fix a LLaMA's shape and arithmetic."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int
    context: int
    rope_base: float
    norm_epsilon: float
    tied_head: bool


class LlamaLayers(nnx.Module):
    """The parameters of all layers, stacked along L."""

    def __init__(self, config: LlamaConfig, *, key: Array, dtype: Any):
        c, keys = config, iter(jax.random.split(key, 7))

        def matrix(*shape: int, axes: tuple[str, ...]) -> nnx.Param:
            value = 0.02 * jax.random.normal(next(keys), (c.layers, *shape))
            return nnx.Param(value.astype(dtype), axes=("layers", *axes))

        def scale() -> nnx.Param:
            return nnx.Param(
                jnp.ones((c.layers, c.width), dtype), axes=("layers", "norm")
            )

        self.attention_norm = scale()
        self.q = matrix(
            c.width, c.heads, c.head_size, axes=("embed", "heads", "head_dim")
        )
        self.k = matrix(
            c.width, c.kv_heads, c.head_size, axes=("embed", "kv_heads", "head_dim")
        )
        self.v = matrix(
            c.width, c.kv_heads, c.head_size, axes=("embed", "kv_heads", "head_dim")
        )
        self.o = matrix(
            c.heads, c.head_size, c.width, axes=("heads", "head_dim", "embed")
        )
        self.mlp_norm = scale()
        self.gate = matrix(c.width, c.feed_forward, axes=("embed", "mlp"))
        self.up = matrix(c.width, c.feed_forward, axes=("embed", "mlp"))
        self.down = matrix(c.feed_forward, c.width, axes=("mlp", "embed"))


class Llama(nnx.Module):
    """A LLaMA: a value that plain `jax.jit` and `jax.grad` take as an argument."""

    def __init__(self, config: LlamaConfig, *, key: Array, dtype: Any = jnp.float32):
        layers_key, embedding_key, head_key = jax.random.split(key, 3)
        shape = (config.vocab_size, config.width)

        def table(key: Array) -> nnx.Param:
            value = 0.02 * jax.random.normal(key, shape)
            return nnx.Param(value.astype(dtype), axes=("vocab", "embed"))

        self.config = config
        self.embedding = table(embedding_key)
        self.layers = LlamaLayers(config, key=layers_key, dtype=dtype)
        self.norm = nnx.Param(jnp.ones((config.width,), dtype), axes=("norm",))
        if not config.tied_head:
            self.head = table(head_key)

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Looks the tokens up; positions enter in the layers, by rotation."""
        del positions
        return self.embedding[tokens]

    def run_layer(
        self,
        layer: LlamaLayers,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        attend: Attend,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Adds attention and then the feed-forward to the residual stream."""
        c = self.config
        angles = rotary_angles(positions, head_size=c.head_size, base=c.rope_base)
        normed = rms_norm(x, layer.attention_norm[...], epsilon=c.norm_epsilon)
        q = rotate(jnp.einsum("btd,dnh->btnh", normed, layer.q[...]), *angles)
        k = rotate(jnp.einsum("btd,dkh->btkh", normed, layer.k[...]), *angles)
        v = jnp.einsum("btd,dkh->btkh", normed, layer.v[...])
        mixed, carried = attend(q, k, v)
        x = x + jnp.einsum("btnh,nhd->btd", mixed, layer.o[...])
        normed = rms_norm(x, layer.mlp_norm[...], epsilon=c.norm_epsilon)
        gated = jax.nn.silu(normed @ layer.gate[...]) * (normed @ layer.up[...])
        return x + gated @ layer.down[...], carried

    def finish(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the final norm."""
        return rms_norm(x, self.norm[...], epsilon=self.config.norm_epsilon)

    def logits(self, hidden: Float[Array, "rows D"]) -> Float[Array, "rows V"]:
        """Scores the vocabulary, in fp32."""
        table = self.embedding if self.config.tied_head else self.head
        # Table first: a third faster on CPU than hidden @ table.T.
        return jnp.matmul(table[...], hidden.T, preferred_element_type=jnp.float32).T
