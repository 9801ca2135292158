"""A BERT-type sentence encoder: text as one unit vector, for retrieval (PAPER.md 1).

The paper embeds questions with a paid API; this stands in for it. Post-norm layers,
learned positions, exact GELU, float32 throughout. Weights come from a Hugging Face
folder of safetensors.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from isara_jax.errors import InputError
from isara_jax.models.encoder_weights import EncoderWeights

# What transformers' BertModel reads beside the sizes, and the value that is ported.
_PORTED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "auto_map": {},
}
_STEPS_AROUND = ("Transformer", "Pooling", "Normalize")

Pooling = Literal["mean", "cls"]
_POOLING_OF_MODE: dict[str, Pooling] = {
    "mean": "mean",
    "pooling_mode_mean_tokens": "mean",
    "cls": "cls",
    "pooling_mode_cls_token": "cls",
}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What the shapes and the maths of an encoder depend on."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    pooling: Pooling

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads config.json, and modules.json and 1_Pooling/config.json where present.

        Raises:
          InputError: a file is missing or damaged, a size is absent or wrong, or an
            attribute asks for maths that is not ported.
        """
        path = folder / "config.json"
        written = _json_object(path)
        for name, ported in _PORTED.items():
            value = written.get(name, ported if name != "model_type" else None)
            if value != ported:
                raise InputError(f"{path}: {name} is {value!r}, only {ported!r} works")
        config = cls(
            vocab_size=_size(written, "vocab_size", path),
            hidden_size=_size(written, "hidden_size", path),
            num_hidden_layers=_size(written, "num_hidden_layers", path),
            num_attention_heads=_size(written, "num_attention_heads", path),
            intermediate_size=_size(written, "intermediate_size", path),
            max_position_embeddings=_size(written, "max_position_embeddings", path),
            type_vocab_size=_size(written, "type_vocab_size", path),
            layer_norm_eps=_epsilon(written, path),
            pooling=_pooling(folder),
        )
        if config.hidden_size % config.num_attention_heads:
            raise InputError(
                f"{path}: hidden_size {config.hidden_size} is no multiple of "
                f"num_attention_heads {config.num_attention_heads}"
            )
        return config

    def size_of_axes(self) -> dict[str, int]:
        """Returns the size of every axis that a parameter names."""
        return {
            "layers": self.num_hidden_layers,
            "vocab": self.vocab_size,
            "positions": self.max_position_embeddings,
            "token_types": self.type_vocab_size,
            "embed": self.hidden_size,
            "heads": self.hidden_size,
            "mlp": self.intermediate_size,
        }


class Encoder(nnx.Module):
    """The encoder as an immutable value; texts of one sentence, so token type 0."""

    def __init__(self, config: EncoderConfig, weights: EncoderWeights) -> None:
        table = weights.table
        self.config = config
        self.words = table("word_embeddings.weight", "vocab", "embed")
        self.positions = table("position_embeddings.weight", "positions", "embed")
        self.token_types = table("token_type_embeddings.weight", "token_types", "embed")
        self.norm_scale = table("LayerNorm.weight", "embed")
        self.norm_bias = table("LayerNorm.bias", "embed")
        self.layers = EncoderLayers(config, weights)

    def __call__(
        self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Returns the last layer's states; `mask` is true where there is a token."""
        eps = self.config.layer_norm_eps
        states = self.words[...][tokens] + self.positions[...][: tokens.shape[1]]
        states = states + self.token_types[...][0]
        states = _layer_norm(states, self.norm_scale, self.norm_bias, eps=eps)
        states, _ = jax.lax.scan(
            lambda carry, layer: (layer(carry, mask), None), states, self.layers
        )
        return states


class EncoderLayers(nnx.Module):
    """The layers: stacked along the first axis, or one of them inside the scan."""

    def __init__(self, config: EncoderConfig, weights: EncoderWeights) -> None:
        stack = weights.stack
        self.config = config
        self.query = stack("attention.self.query.weight", "embed", "heads")
        self.query_bias = stack("attention.self.query.bias", "heads")
        self.key = stack("attention.self.key.weight", "embed", "heads")
        self.key_bias = stack("attention.self.key.bias", "heads")
        self.value = stack("attention.self.value.weight", "embed", "heads")
        self.value_bias = stack("attention.self.value.bias", "heads")
        self.out = stack("attention.output.dense.weight", "heads", "embed")
        self.out_bias = stack("attention.output.dense.bias", "embed")
        self.out_norm_scale = stack("attention.output.LayerNorm.weight", "embed")
        self.out_norm_bias = stack("attention.output.LayerNorm.bias", "embed")
        self.up = stack("intermediate.dense.weight", "embed", "mlp")
        self.up_bias = stack("intermediate.dense.bias", "mlp")
        self.down = stack("output.dense.weight", "mlp", "embed")
        self.down_bias = stack("output.dense.bias", "embed")
        self.down_norm_scale = stack("output.LayerNorm.weight", "embed")
        self.down_norm_bias = stack("output.LayerNorm.bias", "embed")

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Applies one layer: attention, then the feed-forward part, each post-norm."""
        eps = self.config.layer_norm_eps
        states = _layer_norm(
            states + self._attend(states, mask),
            self.out_norm_scale,
            self.out_norm_bias,
            eps=eps,
        )
        raised = jax.nn.gelu(states @ self.up[...] + self.up_bias, approximate=False)
        lowered = raised @ self.down[...] + self.down_bias
        return _layer_norm(
            states + lowered, self.down_norm_scale, self.down_norm_bias, eps=eps
        )

    def _attend(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        heads = (*states.shape[:2], self.config.num_attention_heads, -1)
        mixed = jax.nn.dot_product_attention(
            (states @ self.query[...] + self.query_bias).reshape(heads),
            (states @ self.key[...] + self.key_bias).reshape(heads),
            (states @ self.value[...] + self.value_bias).reshape(heads),
            mask=mask[:, None, None, :],
        )
        return mixed.reshape(states.shape) @ self.out[...] + self.out_bias


def sentence_vectors(
    encoder: Encoder, tokens: Int[Array, "B T"], *, mask: Bool[Array, "B T"]
) -> Float[Array, "B D"]:
    """Returns one unit vector a row: the pooled states, scaled to length 1.

    A row without any token gives zeros. Matmuls are float32 on every platform, so that
    the neighbours of a text do not depend on where it was embedded.
    """
    with jax.default_matmul_precision("float32"):
        states = encoder(tokens, mask)
    shown = jnp.where(mask[:, :, None], states, 0.0)
    pooled = shown[:, 0] if encoder.config.pooling == "cls" else shown.sum(axis=1)
    length = jnp.linalg.norm(pooled, axis=-1, keepdims=True)
    return pooled / jnp.where(length > 0, length, 1.0)


def load_encoder(folder: Path) -> Encoder:
    """Reads an encoder from a Hugging Face folder with config.json and safetensors.

    Raises:
      InputError: as `EncoderConfig.read`, or a tensor is missing, unknown, or of
        another shape or kind than config.json says.
    """
    config = EncoderConfig.read(folder)
    weights = EncoderWeights(folder, config.size_of_axes())
    encoder = Encoder(config, weights)
    weights.refuse_unread()
    return encoder


def _layer_norm(
    states: Float[Array, "B T D"], scale: nnx.Param, bias: nnx.Param, *, eps: float
) -> Float[Array, "B T D"]:
    centred = states - states.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + eps) * scale[...] + bias[...]
