"""Where a model's tensors come from: safetensors and Orbax folders, GGUF files.

All are read tensor by tensor, under Hugging Face's names, shapes and dtypes; no pickle
is ever opened.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gguf
import numpy as np
from safetensors import SafetensorError

from isara_jax.errors import InputError
from isara_jax.models.formats.safetensors import tensor_readers
from isara_jax.runtime.checkpoint import read_tensor, stored_tensors
from isara_jax.runtime.gguf_file import read_gguf
from isara_jax.runtime.sources import ORBAX

GGUF_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GGUF_HEAD = "output.weight"
GGUF_OTHER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    GGUF_HEAD: "lm_head.weight",
}
# What llama.cpp divides the rotary frequencies by.
FREQUENCY_FACTORS = "rope_freqs.weight"
# What safetensors and gguf say of a type that they cannot give to numpy.
UNREADABLE = (SafetensorError, TypeError, AttributeError, NotImplementedError)
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A model's tensors by their Hugging Face names; `read` loads one of them."""

    source: Path
    readers: Mapping[str, Callable[[], np.ndarray]]

    def read(self, name: str) -> np.ndarray:
        """Loads one tensor.

        Raises:
          InputError: the file is damaged, or the tensor holds no plain floats.
        """
        try:
            value = self.readers[name]()
        except UNREADABLE as error:
            raise InputError(
                f"{self.source}: the tensor {name!r} does not load ({error})"
            ) from None
        if value.dtype.name not in FLOATS:
            raise InputError(
                f"{self.source}: the tensor {name!r} holds {value.dtype.name}, "
                f"expected one of {', '.join(FLOATS)}"
            )
        return value


def open_weights(source: Path, *, heads: int, kv_heads: int) -> Weights:
    """Opens a GGUF file, or a folder of safetensors files or else of Orbax's.

    The head counts say how GGUF's interleaved Q and K rows are put back in order.
    """
    if source.suffix == ".gguf":
        return open_gguf(source, heads=heads, kv_heads=kv_heads)
    if (source / ORBAX).is_dir() and not any(source.glob("*.safetensors*")):
        return open_orbax(source / ORBAX)
    return open_safetensors(source)


def open_orbax(folder: Path) -> Weights:
    """Opens a flat tree of tensors under their Hugging Face names.

    Raises:
      InputError: there is no whole checkpoint, or it is no flat tree.
    """
    names = stored_tensors(folder)
    return Weights(
        source=folder,
        readers={name: partial(read_tensor, folder, name) for name in names},
    )


def open_safetensors(folder: Path) -> Weights:
    """Opens `model.safetensors`, or else the files that the index names, or else all.

    Raises:
      InputError: there is none, a header is damaged, two files hold a tensor of one
        name, or the index names other files or tensors than there are.
    """
    return Weights(source=folder, readers=tensor_readers(folder))


def open_gguf(path: Path, *, heads: int, kv_heads: int) -> Weights:
    """Opens a GGUF file; its tensors are dequantized to fp32 when they are read.

    Raises:
      InputError: the file is damaged, or holds a tensor that a LLaMA has not.
    """
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for tensor in read_gguf(path).tensors:
        if tensor.name == FREQUENCY_FACTORS:  # which the configuration has read
            continue
        name = _hugging_face_name(tensor.name, path)
        turned = {"q_proj": heads, "k_proj": kv_heads}.get(name.split(".")[-2])
        readers[name] = gguf_reader(tensor, heads=turned)
    return Weights(source=path, readers=readers)


def gguf_reader(
    tensor: gguf.ReaderTensor, *, heads: int | None = None
) -> Callable[[], np.ndarray]:
    """Returns what dequantizes a tensor to fp32, its heads' rows put back in order."""

    def read() -> np.ndarray:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.astype(np.float32, copy=False)
        # What is not of so many heads is no projection; the loader refuses its shape.
        if heads is None or values.ndim == 0 or len(values) % (2 * heads):
            return values
        return _split_halves(values, heads)

    return read


def _split_halves(interleaved: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's row order (pairs side by side) of a projection or its bias."""
    rows, *columns = interleaved.shape
    pairs = interleaved.reshape(heads, rows // heads // 2, 2, *columns)
    return pairs.swapaxes(1, 2).reshape(interleaved.shape)


def _hugging_face_name(name: str, path: Path) -> str:
    if name in GGUF_OTHER_NAMES:
        return GGUF_OTHER_NAMES[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in GGUF_LAYER_NAMES:
        raise InputError(f"{path}: the tensor {name!r} is none of a LLaMA's")
    return f"model.layers.{match[1]}.{GGUF_LAYER_NAMES[match[2]]}.{match[3]}"
