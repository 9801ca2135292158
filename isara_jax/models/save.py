"""Writes a model as a Hugging Face folder: safetensors, config, tokenizer."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from isara_jax.models.families import LanguageModel, family_of
from isara_jax.models.load import named_tensors
from isara_jax.runtime.tokenizer import Tokenizer
from isara_jax.workdir import write_json


def save_hugging_face(folder: Path, model: LanguageModel, tokenizer: Tokenizer) -> None:
    """Writes what transformers' `from_pretrained` reads, in the model's own dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(named_tensors(model))
    dtype = _dtype_name(next(iter(tensors.values())))
    family = family_of(model.config)
    config: dict[str, Any] = family.config_to_hugging_face(model.config, dtype=dtype)
    end, *others = tokenizer.eos
    ends: int | list[int] = [end, *others] if others else end
    start = tokenizer.bos[0] if tokenizer.bos else None
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(
        folder / "config.json", {**config, "bos_token_id": start, "eos_token_id": ends}
    )
    write_json(folder / "generation_config.json", {"eos_token_id": ends})
    tokenizer.save(folder)


def _dtype_name(tensor: np.ndarray) -> str:
    return str(tensor.dtype)
