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
GGUF_OTHER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# Frequencies that llama.cpp recomputes from the metadata; nothing is learned in them.
DERIVED_TENSORS = re.compile(r"rotary_emb\.inv_freq$|^rope_freqs\.weight$")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A model's tensors by their Hugging Face names; `read` loads one of them."""

    source: Path
    readers: Mapping[str, Callable[[], np.ndarray]]

    def read(self, name: str) -> np.ndarray:
        """Loads one tensor.

        Raises:
          InputError: the file is damaged.
        """
        return self.readers[name]()


def open_weights(source: Path, *, heads: int, kv_heads: int) -> Weights:
    """Opens a GGUF file, or a folder of one or many safetensors files.

    The head counts say how GGUF's interleaved Q and K rows are put back in order.
    """
    if source.suffix == ".gguf":
        return open_gguf(source, heads=heads, kv_heads=kv_heads)
    return open_safetensors(source)


def open_safetensors(folder: Path) -> Weights:
    """Opens `model.safetensors`, or the files that its index names.

    Raises:
      InputError: there is none, a named file is missing, or a header is damaged.
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
            readers[name] = _safetensors_reader(path, name)
    return Weights(source=folder, readers=_without_derived(readers))


def _safetensors_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        found = sorted(folder.glob("*.safetensors"))
        if not found:
            raise InputError(f"{folder}: no .safetensors file in the folder")
        return found
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise InputError(f"{index}: names {name!r}, which is no file of the folder")
    return [folder / name for name in names]


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
    reader = read_gguf(path)
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for tensor in reader.tensors:
        if DERIVED_TENSORS.search(tensor.name):
            continue
        name = _hugging_face_name(tensor.name, path)
        turned = {"q_proj": heads, "k_proj": kv_heads}.get(name.split(".")[-2])
        readers[name] = _gguf_reader(tensor, turned)
    return Weights(source=path, readers=readers)


def read_gguf(path: Path) -> gguf.GGUFReader:
    """Reads a GGUF file's header.

    Raises:
      InputError: it is damaged.
    """
    try:
        return gguf.GGUFReader(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    # The reader walks the file as numpy views, so damage shows as any of these.
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: not a whole GGUF file ({error})") from None


def gguf_value(reader: gguf.GGUFReader, key: str) -> Any:
    """Returns a metadata value.

    Raises:
      InputError: the key is missing.
    """
    field = reader.get_field(key)
    if field is None:
        raise InputError(f"GGUF metadata: the key {key!r} is missing")
    return field.contents()


def _gguf_reader(tensor: Any, heads: int | None) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.astype(np.float32, copy=False)
        return values if heads is None else _split_halves(values, heads)

    return read


def _split_halves(interleaved: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's row order (pairs side by side) of a [heads * H, D] projection."""
    rows, width = interleaved.shape
    pairs = interleaved.reshape(heads, rows // heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def _hugging_face_name(name: str, path: Path) -> str:
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
