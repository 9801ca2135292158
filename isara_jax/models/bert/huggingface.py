"""BERT-type encoders as Hugging Face writes them down: attributes and tensor names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx

from isara_jax.errors import InputError
from isara_jax.models.formats import open_safetensors
from isara_jax.runtime.files import read_json

# All that transformers' BertModel reads beside the sizes; `auto_map` would put code of
# the folder in its place.
ONLY_VALUES: dict[str, Any] = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "auto_map": {},
}
# What a sentence encoder may do besides BERT itself, as modules.json names it.
PORTED_STEPS = ("Transformer", "Pooling", "Normalize")
POOLING_OF_MODE: dict[str, Literal["mean", "cls"]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
# Not of the encoder's arithmetic: an index buffer, and the head of another task.
UNUSED_TENSORS = (
    "embeddings.position_ids",
    "pooler.dense.weight",
    "pooler.dense.bias",
)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The numbers that fix an encoder's shape and arithmetic."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    context: int
    token_types: int
    norm_epsilon: float
    pooling: Literal["mean", "cls"]


def read_config(folder: Path) -> EncoderConfig:
    """Reads config.json, and modules.json and 1_Pooling/config.json where present.

    Raises:
      InputError: a file is missing or damaged, a size is absent or wrong, or an
        attribute asks for arithmetic that is not ported.
    """
    path = folder / "config.json"
    attributes = _read_object(path)
    if attributes.get("model_type") != "bert":
        raise InputError(
            f"{path}: model_type={attributes.get('model_type')!r}, expected 'bert'"
        )
    for name, ported in ONLY_VALUES.items():
        if (attributes.get(name) or ported) != ported:
            raise InputError(
                f"{path}: {name}={attributes[name]!r}, expected {ported!r}"
            )
    _refuse_other_steps(folder / "modules.json")
    config = EncoderConfig(
        vocab_size=_size(attributes, "vocab_size", path),
        width=_size(attributes, "hidden_size", path),
        layers=_size(attributes, "num_hidden_layers", path),
        heads=_size(attributes, "num_attention_heads", path),
        feed_forward=_size(attributes, "intermediate_size", path),
        context=_size(attributes, "max_position_embeddings", path),
        token_types=_size(attributes, "type_vocab_size", path),
        norm_epsilon=_norm_epsilon(attributes, path),
        pooling=_read_pooling(folder / "1_Pooling" / "config.json"),
    )
    if config.width % config.heads:
        raise InputError(
            f"{path}: hidden_size={config.width} is no multiple of "
            f"num_attention_heads={config.heads}"
        )
    return config


class EncoderTensors:
    """The tensors of a folder as parameters; keeps account of what was read."""

    def __init__(self, folder: Path, *, config: EncoderConfig) -> None:
        self._weights = open_safetensors(folder)
        self._unread = set(self._weights.readers).difference(UNUSED_TENSORS)
        self._layers = config.layers
        self._sizes = {
            "vocab": config.vocab_size,
            "positions": config.context,
            "token_types": config.token_types,
            "embed": config.width,
            "norm": config.width,
            "heads": config.width,
            "mlp": config.feed_forward,
        }

    def table(self, name: str, *axes: str) -> nnx.Param:
        """Reads a tensor of the embeddings, whose axes are as in the file.

        Raises:
          InputError: it is missing, mis-shaped or damaged.
        """
        shape = tuple(self._sizes[axis] for axis in axes)
        return nnx.Param(
            jnp.asarray(self._read(f"embeddings.{name}", shape)), axes=axes
        )

    def stack(self, name: str, *axes: str) -> nnx.Param:
        """Reads a tensor of every layer, one under the other; kernels as [in, out].

        Raises:
          InputError: one is missing, mis-shaped or damaged.
        """
        shape = tuple(self._sizes[axis] for axis in axes)
        make_layer_blocks = np.empty((self._layers, *shape), np.float32)
        for number in range(self._layers):
            in_file = self._read(f"encoder.layer.{number}.{name}", shape[::-1])
            make_layer_blocks[number] = in_file.T
        return nnx.Param(jnp.asarray(make_layer_blocks), axes=("layers", *axes))

    def validate_all_read(self) -> None:
        """Checks that every tensor of the folder has become part of the encoder.

        Raises:
          InputError: one has not.
        """
        if self._unread:
            raise InputError(
                f"{self._weights.source}: the tensor {min(self._unread)!r} is none of "
                "the encoder that config.json describes"
            )

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self._weights.readers:
            raise InputError(f"{self._weights.source}: the tensor {name!r} is missing")
        value = self._weights.read(name)
        if value.shape != shape:
            raise InputError(
                f"{self._weights.source}: the tensor {name!r} has the shape "
                f"{list(value.shape)}, expected {list(shape)}"
            )
        self._unread.discard(name)
        return value.astype(np.float32)


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object")
    return value


def _size(attributes: Mapping[str, Any], name: str, path: Path) -> int:
    value = attributes.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{path}: {name}={value!r}, expected a whole number above 0")
    return value


def _norm_epsilon(attributes: Mapping[str, Any], path: Path) -> float:
    value = attributes.get("layer_norm_eps")
    if not isinstance(value, float) or not 0 < value < 1:
        raise InputError(
            f"{path}: layer_norm_eps={value!r}, expected a number above 0 and below 1"
        )
    return value


def _refuse_other_steps(path: Path) -> None:
    if not path.exists():
        return
    steps = read_json(path)
    if not isinstance(steps, list) or not all(isinstance(s, dict) for s in steps):
        raise InputError(f"{path}: expected a list of JSON objects")
    for step in steps:
        kind = str(step.get("type")).rpartition(".")[2]
        if kind not in PORTED_STEPS:
            raise InputError(
                f"{path}: the step {kind!r} is not ported, expected one of "
                f"{', '.join(PORTED_STEPS)}"
            )


def _read_pooling(path: Path) -> Literal["mean", "cls"]:
    if not path.exists():
        return "mean"
    modes = [
        name
        for name, value in _read_object(path).items()
        if name.startswith("pooling_mode_") and value
    ]
    if len(modes) != 1 or modes[0] not in POOLING_OF_MODE:
        raise InputError(
            f"{path}: the pooling is {' with '.join(modes) or 'none'}, expected one of "
            f"{', '.join(POOLING_OF_MODE)}"
        )
    return POOLING_OF_MODE[modes[0]]
