"""Reads a BERT-type sentence encoder's Hugging Face folder: attributes and tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx

from isara_jax.errors import InputError
from isara_jax.models.formats import ConfigReader, open_safetensors
from isara_jax.runtime.files import read_json

# The other attributes that transformers' BertModel reads, with the values implemented
# here; `auto_map` would run code of the folder.
ONLY_VALUES: dict[str, Any] = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "auto_map": {},
}
# The modules of sentence-transformers that are implemented, as modules.json names them.
MODULES = ("Transformer", "Pooling", "Normalize")
POOLING_OF_MODE: dict[str, Literal["mean", "cls"]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
# A buffer of indices and the head of another task, which the encoder does not use.
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
        attribute asks for arithmetic that is not implemented.
    """
    a = ConfigReader.from_json(folder / "config.json")
    a.require("model_type", "bert")
    for name, implemented in ONLY_VALUES.items():
        if a.values.get(name):
            a.require(name, implemented)
    _validate_modules(folder / "modules.json")
    width, heads = a.positive_int("hidden_size"), a.positive_int("num_attention_heads")
    epsilon = a.positive_float("layer_norm_eps")
    if epsilon >= 1:
        raise a.error("layer_norm_eps", epsilon, "expected a number below 1")
    if width % heads:
        raise a.error("num_attention_heads", heads, f"expected a divisor of {width}")
    return EncoderConfig(
        vocab_size=a.positive_int("vocab_size"),
        width=width,
        layers=a.positive_int("num_hidden_layers"),
        heads=heads,
        feed_forward=a.positive_int("intermediate_size"),
        context=a.positive_int("max_position_embeddings"),
        token_types=a.positive_int("type_vocab_size"),
        norm_epsilon=epsilon,
        pooling=_read_pooling(folder / "1_Pooling" / "config.json"),
    )


class EncoderTensors:
    """The tensors of a folder as parameters; records which of them were read."""

    def __init__(self, folder: Path, *, config: EncoderConfig) -> None:
        self._tensors = open_safetensors(folder)
        self._unread = set(self._tensors.readers).difference(UNUSED_TENSORS)
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
        """Reads a tensor of every layer and stacks them; weights become [in, out].

        Raises:
          InputError: one is missing, mis-shaped or damaged.
        """
        shape = tuple(self._sizes[axis] for axis in axes)
        layers = np.empty((self._layers, *shape), np.float32)
        for number in range(self._layers):
            stored = self._read(f"encoder.layer.{number}.{name}", shape[::-1])
            layers[number] = stored.T
        return nnx.Param(jnp.asarray(layers), axes=("layers", *axes))

    def validate_all_read(self) -> None:
        """Checks that every tensor of the folder has become part of the encoder.

        Raises:
          InputError: one has not.
        """
        if self._unread:
            raise InputError(
                f"{self._tensors.path}: the tensor {min(self._unread)!r} is none of "
                "the encoder that config.json describes"
            )

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self._tensors.readers:
            raise InputError(f"{self._tensors.path}: the tensor {name!r} is missing")
        value = self._tensors.read_shaped(name, shape)
        self._unread.discard(name)
        return value.astype(np.float32)


def _validate_modules(path: Path) -> None:
    if not path.exists():
        return
    steps = read_json(path)
    if not isinstance(steps, list) or not all(isinstance(s, dict) for s in steps):
        raise InputError(f"{path}: expected a list of JSON objects")
    for step in steps:
        kind = str(step.get("type")).rpartition(".")[2]
        if kind not in MODULES:
            raise InputError(
                f"{path}: the step {kind!r} is not implemented, expected one of "
                f"{', '.join(MODULES)}"
            )


def _read_pooling(path: Path) -> Literal["mean", "cls"]:
    if not path.exists():
        return "mean"
    modes = [
        name
        for name, value in ConfigReader.from_json(path).values.items()
        if name.startswith("pooling_mode_") and value
    ]
    if len(modes) != 1 or modes[0] not in POOLING_OF_MODE:
        raise InputError(
            f"{path}: the pooling is {' with '.join(modes) or 'none'}, expected one of "
            f"{', '.join(POOLING_OF_MODE)}"
        )
    return POOLING_OF_MODE[modes[0]]
