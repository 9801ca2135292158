"""A BERT-type sentence encoder (Devlin et al. 2018): a text as one unit vector.

It stands in for the paid API by which the paper embeds questions (docs/method.md,
"Departures from the paper"). Post-norm layers, learned positions, exact GELU, fp32
throughout. Weights are [in, out]; the heads are merged into one axis.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from isara_jax.models.attention import attention
from isara_jax.models.bert.huggingface import EncoderConfig, EncoderTensors, read_config
from isara_jax.models.layers import layer_norm


class Encoder(nnx.Module):
    """The encoder as an immutable value; texts of one sentence, so token type 0."""

    def __init__(self, config: EncoderConfig, tensors: EncoderTensors) -> None:
        table = tensors.table
        self.config = config
        self.embedding = table("word_embeddings.weight", "vocab", "embed")
        self.positions = table("position_embeddings.weight", "positions", "embed")
        self.token_types = table("token_type_embeddings.weight", "token_types", "embed")
        self.norm_scale = table("LayerNorm.weight", "norm")
        self.norm_bias = table("LayerNorm.bias", "norm")
        self.layers = EncoderLayers(config, tensors)

    def __call__(
        self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Returns the last layer's states; `mask` is true where there is a token."""
        epsilon = self.config.norm_epsilon
        states = self.embedding[...][tokens] + self.positions[...][: tokens.shape[1]]
        states = states + self.token_types[...][0]
        states = layer_norm(
            states, self.norm_scale[...], self.norm_bias[...], epsilon=epsilon
        )
        states, _ = jax.lax.scan(
            lambda carry, layer: (layer(carry, mask), None), states, self.layers
        )
        return states


class EncoderLayers(nnx.Module):
    """The layers: stacked along the first axis, or one of them inside the scan."""

    def __init__(self, config: EncoderConfig, tensors: EncoderTensors) -> None:
        stack = tensors.stack
        self.config = config
        self.query = stack("attention.self.query.weight", "embed", "heads")
        self.query_bias = stack("attention.self.query.bias", "heads")
        self.key = stack("attention.self.key.weight", "embed", "heads")
        self.key_bias = stack("attention.self.key.bias", "heads")
        self.value = stack("attention.self.value.weight", "embed", "heads")
        self.value_bias = stack("attention.self.value.bias", "heads")
        self.out = stack("attention.output.dense.weight", "heads", "embed")
        self.out_bias = stack("attention.output.dense.bias", "embed")
        self.out_norm_scale = stack("attention.output.LayerNorm.weight", "norm")
        self.out_norm_bias = stack("attention.output.LayerNorm.bias", "norm")
        self.up = stack("intermediate.dense.weight", "embed", "mlp")
        self.up_bias = stack("intermediate.dense.bias", "mlp")
        self.down = stack("output.dense.weight", "mlp", "embed")
        self.down_bias = stack("output.dense.bias", "embed")
        self.down_norm_scale = stack("output.LayerNorm.weight", "norm")
        self.down_norm_bias = stack("output.LayerNorm.bias", "norm")

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Applies one layer: attention, then the feed-forward part, each post-norm."""
        epsilon = self.config.norm_epsilon
        states = layer_norm(
            states + self._attend(states, mask),
            self.out_norm_scale[...],
            self.out_norm_bias[...],
            epsilon=epsilon,
        )
        raised = jax.nn.gelu(
            states @ self.up[...] + self.up_bias[...], approximate=False
        )
        lowered = raised @ self.down[...] + self.down_bias[...]
        return layer_norm(
            states + lowered,
            self.down_norm_scale[...],
            self.down_norm_bias[...],
            epsilon=epsilon,
        )

    def _attend(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        length = states.shape[1]
        heads = (*states.shape[:2], self.config.heads, -1)
        keys = states @ self.key[...] + self.key_bias[...]
        values = states @ self.value[...] + self.value_bias[...]
        mixed = attention(
            (states @ self.query[...] + self.query_bias[...]).reshape(heads),
            keys.reshape(heads).swapaxes(1, 2),
            values.reshape(heads).swapaxes(1, 2),
            visible=jnp.repeat(mask[:, None, :], length, axis=1),
        )
        return mixed.reshape(states.shape) @ self.out[...] + self.out_bias[...]


def sentence_vectors(
    encoder: Encoder, tokens: Int[Array, "B T"], *, mask: Bool[Array, "B T"]
) -> Float[Array, "B D"]:
    """Returns one unit vector a row: its states pooled, then scaled to length 1.

    A row must have at least one token. Matmuls are float32 on every platform, so that
    the neighbours of a text do not depend on where it was embedded.
    """
    with jax.default_matmul_precision("float32"):
        states = encoder(tokens, mask)
    if encoder.config.pooling == "cls":
        pooled = states[:, 0]
    else:  # the sum points where the mean does
        pooled = jnp.where(mask[:, :, None], states, 0.0).sum(axis=1)
    return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)


def load_encoder(folder: Path) -> Encoder:
    """Reads an encoder from a Hugging Face folder with config.json and safetensors.

    Raises:
      InputError: a file is missing or damaged, an attribute asks for arithmetic that is
        not ported, or a tensor is missing, unknown or mis-shaped.
    """
    config = read_config(folder)
    tensors = EncoderTensors(folder, config=config)
    encoder = Encoder(config, tensors)
    tensors.validate_all_read()
    return encoder
