"""Where a model's tensors come from: safetensors folders and GGUF files.

Both are read tensor by tensor, under Hugging Face's names, shapes and dtypes; no pickle
is ever opened.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors import SafetensorError, safe_open

from isara_jax.errors import InputError
from isara_jax.runtime.gguf_file import read_gguf
from isara_jax.workdir import read_json

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
# Rotary frequencies, which follow from the configuration.
DERIVED_TENSORS = re.compile(r"rotary_emb\.inv_freq$")
# What llama.cpp divides the frequencies by; of a model without scaling, all ones.
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
    """Opens a GGUF file, or a folder of one or many safetensors files.

    The head counts say how GGUF's interleaved Q and K rows are put back in order.
    """
    if source.suffix == ".gguf":
        return open_gguf(source, heads=heads, kv_heads=kv_heads)
    return open_safetensors(source)


def open_safetensors(folder: Path) -> Weights:
    """Opens `model.safetensors`, or else the files that the index names, or else all.

    Raises:
      InputError: there is none, a named file is missing, a header is damaged, or two
        files hold a tensor of one name.
    """
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for path in _safetensors_files(folder):
        try:
            with safe_open(path, framework="numpy") as file:
                names = list(file.keys())
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path}: not a whole safetensors file ({error})"
            ) from None
        for name in names:
            if name in readers:
                raise InputError(f"{path}: another file holds {name!r} too")
            readers[name] = _safetensors_reader(path, name)
    return Weights(source=folder, readers=_without_derived(readers))


def _safetensors_files(folder: Path) -> list[Path]:
    whole = folder / "model.safetensors"
    if whole.is_file():
        return [whole]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in _files_of_index(index)]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise InputError(f"{folder}: no .safetensors file in the folder")
    return found


def _files_of_index(index: Path) -> list[str]:
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise InputError(f"{index}: expected a JSON object with a weight_map")
    for name in places.values():
        is_plain = isinstance(name, str) and Path(name).name == name
        if not is_plain or not (index.parent / name).is_file():
            raise InputError(f"{index}: names {name!r}, which is no file of the folder")
    return sorted(set(places.values()))


def _safetensors_reader(path: Path, name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)

    return read


def open_gguf(path: Path, *, heads: int, kv_heads: int) -> Weights:
    """Opens a GGUF file; its tensors are dequantized to fp32 when they are read.

    Raises:
      InputError: the file is damaged, or holds a tensor that a LLaMA has not.
    """
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for tensor in read_gguf(path).tensors:
        name = _hugging_face_name(tensor.name, path)
        turned = {"q_proj": heads, "k_proj": kv_heads}.get(name.split(".")[-2])
        readers[name] = _gguf_reader(tensor, turned)
    weights = Weights(source=path, readers=readers)
    if FREQUENCY_FACTORS in readers:
        if np.any(weights.read(FREQUENCY_FACTORS) != 1):
            raise InputError(
                f"{path}: {FREQUENCY_FACTORS} is not all ones; scaled rotary positions "
                "are not computed"
            )
        del readers[FREQUENCY_FACTORS]
    return weights


def _gguf_reader(tensor: Any, heads: int | None) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.astype(np.float32, copy=False)
        # What is not of so many heads is no projection; the loader refuses its shape.
        if heads is None or values.ndim != 2 or len(values) % (2 * heads):
            return values
        return _split_halves(values, heads)

    return read


def _split_halves(interleaved: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's row order (pairs side by side) of a [heads * H, D] projection."""
    rows, width = interleaved.shape
    pairs = interleaved.reshape(heads, rows // heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def _hugging_face_name(name: str, path: Path) -> str:
    if name == FREQUENCY_FACTORS:
        return name
    if name in GGUF_OTHER_NAMES:
        return GGUF_OTHER_NAMES[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight)", name)
    if match is None or match[2] not in GGUF_LAYER_NAMES:
        raise InputError(f"{path}: the tensor {name!r} is none of a LLaMA's")
    return f"model.layers.{match[1]}.{GGUF_LAYER_NAMES[match[2]]}.weight"


def _without_derived(readers: dict[str, Any]) -> dict[str, Any]:
    return {
        name: reader
        for name, reader in readers.items()
        if not DERIVED_TENSORS.search(name)
    }
