"""GGUF files: their header, and the tokenizer that the metadata describe."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers import TokenizersBackend
from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    GGUF_TOKENIZER_MAPPING,
    convert_gguf_tokenizer,
)

from isara_jax.errors import InputError

SPECIAL_TOKENS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


def read_gguf(path: Path) -> gguf.GGUFReader:
    """Reads a GGUF file's header.

    Raises:
      InputError: it is damaged.
    """
    try:
        reader = _BoundedReader(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    # The reader walks the file as numpy views, so damage shows as any of these.
    except (ValueError, LookupError, TypeError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not a whole GGUF file ({error})") from None
    # Where the header counts too few tensors, all of them are read from a wrong place.
    end = max((int(t.data_offset + t.n_bytes) for t in reader.tensors), default=0)
    if len(reader.data) - end >= reader.alignment:
        raise InputError(
            f"{path}: not a whole GGUF file (its tensors end at byte {end} of "
            f"{len(reader.data)})"
        )
    return reader


class _BoundedReader(gguf.GGUFReader):
    """Stops at the file's end, where its base reads empty arrays for a count's time."""

    def _get(
        self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None
    ) -> Any:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"ends at byte {len(self.data)}, needs {end}")
        return super()._get(int(offset), dtype, count, override_order)


def gguf_metadata(reader: gguf.GGUFReader, path: Path) -> dict[str, Any]:
    """Returns the metadata of a GGUF file by their keys.

    Raises:
      InputError: a value is damaged.
    """
    try:
        return {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: the metadata are damaged ({error})") from None


def gguf_tokenizer(path: Path) -> TokenizersBackend:
    """Builds the tokenizer that a GGUF file describes.

    By transformers' conversion, with the file read here: its own reader needs torch.
    Whatever the metadata lack or bend is raised as the error that it causes.
    """
    metadata = gguf_metadata(read_gguf(path), path)
    described, settings = (
        {
            ours: metadata[f"tokenizer.{key}"]
            for key, ours in GGUF_TOKENIZER_MAPPING[group].items()
            if f"tokenizer.{key}" in metadata
        }
        for group in ("tokenizer", "tokenizer_config")
    )
    if described.get("tokenizer_type") == "llama":
        # What llama.cpp does with a sentencepiece vocabulary that does not say.
        settings.setdefault("add_bos_token", True)
    for name, key in SPECIAL_TOKENS.items():
        number = metadata.get(key)
        settings[name] = None if number is None else described["tokens"][number]
    backend, more = convert_gguf_tokenizer(metadata["general.architecture"], described)
    return TokenizersBackend(tokenizer_object=backend, **settings, **more)
