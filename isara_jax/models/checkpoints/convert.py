"""Converts a model's files tensor by tensor; no model is built."""

import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np

from isara_jax.errors import FieldError
from isara_jax.models.checkpoints.load import read_tensors
from isara_jax.models.checkpoints.open import OpenedModel
from isara_jax.models.checkpoints.save import write_description
from isara_jax.models.formats import write_safetensors
from isara_jax.runtime import ORBAX, Tokenizer
from isara_jax.runtime.checkpoint import save_stream
from isara_jax.runtime.files import read_json, write_json

Format = Literal["hf", "orbax"]
DTYPES = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
}
# What a model's folder holds besides its weights, its config and its card.
COPIED = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*"),
    *("merges.txt", "*.jinja", "chat_template.json", "generation_config.json"),
    *("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*"),
)


def convert_weights(
    folder: Path,
    opened: OpenedModel,
    *,
    to: Format,
    dtype: str,
    advance: Callable[[], None],
) -> frozenset[str]:
    """Writes a model's weights into the folder; calls `advance` after each tensor.

    Returns the dtypes that the source's tensors have.

    Raises:
      InputError: a tensor is damaged, mis-shaped, or holds what the dtype cannot.
      EnvironmentFailure: the disk does not take them.
    """
    found: set[str] = set()

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        for name, tensor in read_tensors(opened):
            found.add(tensor.dtype.name)
            yield name, round_to(tensor, dtype, name=f"{opened.path}: {name}")
            advance()

    if to == "orbax":
        save_stream(folder / ORBAX, stream())
    else:
        write_safetensors(folder, stream())
    return frozenset(found)


def round_to(tensor: np.ndarray, dtype: str, *, name: str) -> np.ndarray:
    """Returns the tensor in a dtype.

    Raises:
      FieldError: a finite number of it becomes infinite.
    """
    with np.errstate(over="ignore"):
        narrow = tensor.astype(DTYPES[dtype], copy=False)
    # The others have the range of fp32.
    if dtype == "float16" and np.any(np.isinf(narrow) & np.isfinite(tensor)):
        raise FieldError(
            "dtype",
            dtype,
            f"{name} holds numbers beyond float16's greatest, 65504; choose bfloat16 "
            "or float32",
        )
    return narrow


def convert_description(
    folder: Path, opened: OpenedModel, tokenizer: Tokenizer, *, dtype: str
) -> None:
    """Copies the files beside a folder's weights, or writes those of a GGUF file."""
    if opened.gguf is not None:
        write_description(folder, opened.config, tokenizer, dtype=dtype)
        return
    for path in _matching(opened.path, COPIED):
        shutil.copyfile(path, folder / path.name)
    attributes = read_json(opened.path / "config.json")
    attributes.pop("dtype", None)
    write_json(folder / "config.json", attributes | {"torch_dtype": dtype})


def _matching(folder: Path, patterns: Collection[str]) -> list[Path]:
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file())
