"""OPT (Zhang et al. 2022) as an immutable Flax NNX value.

LayerNorm, learned positions that begin at an offset of 2, biases, and one activation
between two projections. OPT-350m differs from its family: it normalises after each half
of a layer, has no final norm, and its embeddings are narrower than its layers. Layers,
weights and axes are as in `models.llama`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from isara_jax.models.decoder import Attend
from isara_jax.models.layers import (
    ScoreHead,
    layer_norm,
    linear,
    score_labels,
    score_parameters,
)

POSITION_OFFSET = 2
NORM_EPSILON = 1e-5

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
}


@dataclass(frozen=True, kw_only=True)
class OptConfig:
    """The numbers that fix an OPT's shape and arithmetic."""

    vocab_size: int
    width: int
    embedding_width: int
    layers: int
    heads: int
    feed_forward: int
    context: int
    activation: str
    pre_norm: bool
    final_norm: bool
    biases: bool
    tied_head: bool
    score: ScoreHead | None = None

    @property
    def kv_heads(self) -> int:
        return self.heads

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def window(self) -> None:
        return None

    @property
    def projected(self) -> bool:
        """Whether the embeddings are narrower than the layers."""
        return self.embedding_width != self.width


class OptLayers(nnx.Module):
    """The parameters of all layers, stacked along L."""

    def __init__(self, config: OptConfig, *, key: Array, dtype: Any):
        c, keys = config, iter(jax.random.split(key, 6))
        split = (c.heads, c.head_size)

        def weight(*shape: int, axes: tuple[str, ...], inputs: int = 1) -> nnx.Param:
            value = 0.02 * jax.random.normal(next(keys), (c.layers, *shape))
            axes = ("layers", *axes)
            return nnx.Param(value.astype(dtype), axes=axes, inputs=inputs)

        def vector(*shape: int, fill: float, axes: tuple[str, ...]) -> nnx.Param:
            value = jnp.full((c.layers, *shape), fill, dtype)
            return nnx.Param(value, axes=("layers", *axes))

        into_heads = ("embed", "heads", "head_dim")
        self.q = weight(c.width, *split, axes=into_heads)
        self.k = weight(c.width, *split, axes=into_heads)
        self.v = weight(c.width, *split, axes=into_heads)
        into_embed = ("heads", "head_dim", "embed")
        self.o = weight(*split, c.width, axes=into_embed, inputs=2)
        self.up = weight(c.width, c.feed_forward, axes=("embed", "mlp"))
        self.down = weight(c.feed_forward, c.width, axes=("mlp", "embed"))
        self.attention_norm_scale = vector(c.width, fill=1.0, axes=("norm",))
        self.attention_norm_bias = vector(c.width, fill=0.0, axes=("norm",))
        self.mlp_norm_scale = vector(c.width, fill=1.0, axes=("norm",))
        self.mlp_norm_bias = vector(c.width, fill=0.0, axes=("norm",))
        if c.biases:
            self.q_bias = vector(*split, fill=0.0, axes=("heads", "head_dim"))
            self.k_bias = vector(*split, fill=0.0, axes=("heads", "head_dim"))
            self.v_bias = vector(*split, fill=0.0, axes=("heads", "head_dim"))
            self.o_bias = vector(c.width, fill=0.0, axes=("norm",))
            self.up_bias = vector(c.feed_forward, fill=0.0, axes=("mlp",))
            self.down_bias = vector(c.width, fill=0.0, axes=("norm",))


class Opt(nnx.Module):
    """An OPT: a value that plain `jax.jit` and `jax.grad` take as an argument."""

    def __init__(self, config: OptConfig, *, key: Array, dtype: Any = jnp.float32):
        c, keys = config, iter(jax.random.split(key, 6))

        def table(*shape: int, axes: tuple[str, ...]) -> nnx.Param:
            value = 0.02 * jax.random.normal(next(keys), shape)
            return nnx.Param(value.astype(dtype), axes=axes)

        word_embed = "word_embed" if c.projected else "embed"
        self.config = config
        self.layers = OptLayers(config, key=next(keys), dtype=dtype)
        self.embedding = table(
            c.vocab_size, c.embedding_width, axes=("vocab", word_embed)
        )
        self.positions = table(
            c.context + POSITION_OFFSET, c.width, axes=("positions", "embed")
        )
        if c.projected:
            shape = (c.embedding_width, c.width)
            self.project_in = table(*shape, axes=("word_embed", "embed"))
            self.project_out = table(*shape[::-1], axes=("embed", "word_embed"))
        if c.final_norm:
            self.norm_scale = nnx.Param(jnp.ones((c.width,), dtype), axes=("norm",))
            self.norm_bias = nnx.Param(jnp.zeros((c.width,), dtype), axes=("norm",))
        if c.score is not None:
            self.score, self.score_bias = score_parameters(
                c.score, width=c.embedding_width, key=next(keys), dtype=dtype
            )
        elif not c.tied_head:
            self.head = table(
                c.vocab_size, c.embedding_width, axes=("vocab", word_embed)
            )

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Adds the embeddings of the tokens and of their positions."""
        embedded = self.embedding[tokens]
        if self.config.projected:
            embedded = embedded @ self.project_in[...]
        return embedded + self.positions[positions + POSITION_OFFSET]

    def run_layer(
        self,
        layer: OptLayers,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        attend: Attend,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Adds attention and then the feed-forward to the residual stream."""
        del positions
        pre = self.config.pre_norm
        inside = _norm(layer, "attention_norm", x) if pre else x
        mixed, carried = self._attend(layer, inside, attend)
        x = x + mixed if pre else _norm(layer, "attention_norm", x + mixed)
        inside = _norm(layer, "mlp_norm", x) if pre else x
        raised = self._feed_forward(layer, inside)
        return (x + raised if pre else _norm(layer, "mlp_norm", x + raised)), carried

    def _attend(
        self, layer: OptLayers, x: Float[Array, "B T D"], attend: Attend
    ) -> tuple[Float[Array, "B T D"], Any]:
        q, k, v = (linear(x, weight) for weight in (layer.q, layer.k, layer.v))
        if not self.config.biases:
            mixed, carried = attend(q, k, v)
            return linear(mixed, layer.o), carried
        mixed, carried = attend(
            q + layer.q_bias[...], k + layer.k_bias[...], v + layer.v_bias[...]
        )
        out = linear(mixed, layer.o) + layer.o_bias[...]
        return out, carried

    def _feed_forward(
        self, layer: OptLayers, x: Float[Array, "B T D"]
    ) -> Float[Array, "B T D"]:
        activate = ACTIVATIONS[self.config.activation]
        if not self.config.biases:
            return linear(activate(linear(x, layer.up)), layer.down)
        raised = activate(linear(x, layer.up) + layer.up_bias[...])
        return linear(raised, layer.down) + layer.down_bias[...]

    def finish(self, x: Float[Array, "B T D"]) -> Float[Array, "B T E"]:
        """Applies the final norm and the projection to the embeddings' width."""
        if self.config.final_norm:
            x = layer_norm(
                x, self.norm_scale[...], self.norm_bias[...], epsilon=NORM_EPSILON
            )
        return x @ self.project_out[...] if self.config.projected else x

    def logits(self, hidden: Float[Array, "rows E"]) -> Float[Array, "rows V"]:
        """Scores the vocabulary, in fp32."""
        table = self.embedding if self.config.tied_head else self.head
        return jnp.matmul(table[...], hidden.T, preferred_element_type=jnp.float32).T

    def scores(self, hidden: Float[Array, "rows E"]) -> Float[Array, "rows labels"]:
        """Scores the labels of a model with a score head, in fp32."""
        return score_labels(hidden, self.score, self.score_bias)


def _norm(
    layer: OptLayers, name: str, x: Float[Array, "B T D"]
) -> Float[Array, "B T D"]:
    scale, bias = getattr(layer, f"{name}_scale"), getattr(layer, f"{name}_bias")
    return layer_norm(x, scale[...], bias[...], epsilon=NORM_EPSILON)
