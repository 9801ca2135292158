"""LLaMA (Touvron et al. 2023) as an immutable Flax NNX value.

RMSNorm before each half of a layer, rotary positions, grouped-query attention, SwiGLU,
tied or untied output head, or a score head. Its descendants are the same model: Vicuna,
TinyLlama, SmolLM, and Mistral with its sliding window. Layers are stacked along the
first axis and scanned by `models.decoder`. Weights are [*inputs, *outputs]; each
parameter names its logical axes (`axes`), and a linear weight counts its input axes
(`inputs`).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from isara_jax.models.decoder import Attend
from isara_jax.models.layers import (
    RopeScaling,
    ScoreHead,
    linear,
    rms_norm,
    rotary_angles,
    rotate,
    score_labels,
    score_parameters,
)


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
    rope_scaling: RopeScaling | None = None
    window: int | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    score: ScoreHead | None = None


class LlamaLayers(nnx.Module):
    """The parameters of all layers, stacked along L."""

    def __init__(self, config: LlamaConfig, *, key: Array, dtype: Any):
        c, keys = config, iter(jax.random.split(key, 7))

        def weight(*shape: int, axes: tuple[str, ...], inputs: int = 1) -> nnx.Param:
            value = 0.02 * jax.random.normal(next(keys), (c.layers, *shape))
            axes = ("layers", *axes)
            return nnx.Param(value.astype(dtype), axes=axes, inputs=inputs)

        def scale() -> nnx.Param:
            return nnx.Param(
                jnp.ones((c.layers, c.width), dtype), axes=("layers", "norm")
            )

        def bias(*shape: int, axes: tuple[str, ...]) -> nnx.Param:
            value = jnp.zeros((c.layers, *shape), dtype)
            return nnx.Param(value, axes=("layers", *axes))

        self.attention_norm = scale()
        self.q = weight(
            c.width, c.heads, c.head_size, axes=("embed", "heads", "head_dim")
        )
        self.k = weight(
            c.width, c.kv_heads, c.head_size, axes=("embed", "kv_heads", "head_dim")
        )
        self.v = weight(
            c.width, c.kv_heads, c.head_size, axes=("embed", "kv_heads", "head_dim")
        )
        into_embed = ("heads", "head_dim", "embed")
        self.o = weight(c.heads, c.head_size, c.width, axes=into_embed, inputs=2)
        self.mlp_norm = scale()
        self.gate = weight(c.width, c.feed_forward, axes=("embed", "mlp"))
        self.up = weight(c.width, c.feed_forward, axes=("embed", "mlp"))
        self.down = weight(c.feed_forward, c.width, axes=("mlp", "embed"))
        if c.attention_bias:
            self.q_bias = bias(c.heads, c.head_size, axes=("heads", "head_dim"))
            self.k_bias = bias(c.kv_heads, c.head_size, axes=("kv_heads", "head_dim"))
            self.v_bias = bias(c.kv_heads, c.head_size, axes=("kv_heads", "head_dim"))
            self.o_bias = bias(c.width, axes=("norm",))
        if c.mlp_bias:
            self.gate_bias = bias(c.feed_forward, axes=("mlp",))
            self.up_bias = bias(c.feed_forward, axes=("mlp",))
            self.down_bias = bias(c.width, axes=("norm",))


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
        if config.score is not None:
            self.score, self.score_bias = score_parameters(
                config.score, width=config.width, key=head_key, dtype=dtype
            )
        elif not config.tied_head:
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
        angles = rotary_angles(
            positions,
            head_size=c.head_size,
            base=c.rope_base,
            scaling=c.rope_scaling,
        )
        normed = rms_norm(x, layer.attention_norm[...], epsilon=c.norm_epsilon)
        q, k = linear(normed, layer.q), linear(normed, layer.k)
        v = linear(normed, layer.v)
        if c.attention_bias:
            q, k = q + layer.q_bias[...], k + layer.k_bias[...]
            v = v + layer.v_bias[...]
        mixed, carried = attend(rotate(q, *angles), rotate(k, *angles), v)
        out = linear(mixed, layer.o)
        x = x + (out + layer.o_bias[...] if c.attention_bias else out)
        normed = rms_norm(x, layer.mlp_norm[...], epsilon=c.norm_epsilon)
        return x + self._feed_forward(layer, normed), carried

    def _feed_forward(
        self, layer: LlamaLayers, x: Float[Array, "B T D"]
    ) -> Float[Array, "B T D"]:
        gate, up = linear(x, layer.gate), linear(x, layer.up)
        if not self.config.mlp_bias:
            return linear(jax.nn.silu(gate) * up, layer.down)
        gate, up = gate + layer.gate_bias[...], up + layer.up_bias[...]
        return linear(jax.nn.silu(gate) * up, layer.down) + layer.down_bias[...]

    def finish(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the final norm."""
        return rms_norm(x, self.norm[...], epsilon=self.config.norm_epsilon)

    def logits(self, hidden: Float[Array, "rows D"]) -> Float[Array, "rows V"]:
        """Scores the vocabulary, in fp32."""
        table = self.embedding if self.config.tied_head else self.head
        # Table first: a third faster on CPU than hidden @ table.T.
        return jnp.matmul(table[...], hidden.T, preferred_element_type=jnp.float32).T

    def scores(self, hidden: Float[Array, "rows D"]) -> Float[Array, "rows labels"]:
        """Scores the labels of a model with a score head, in fp32."""
        return score_labels(hidden, self.score, self.score_bias)
