"""Writes a model as a Hugging Face folder: safetensors, config, tokenizer."""

from pathlib import Path
from typing import Any

from isara_jax.models.checkpoints.load import named_tensors
from isara_jax.models.decoder import Decoder, DecoderConfig
from isara_jax.models.families import family_of
from isara_jax.models.formats import write_safetensors
from isara_jax.runtime import Tokenizer, dtype_of
from isara_jax.runtime.files import write_json


def save_hugging_face(folder: Path, model: Decoder, tokenizer: Tokenizer) -> None:
    """Writes what transformers' `from_pretrained` reads, in the model's own dtype.

    Raises:
      EnvironmentFailure: the disk does not take it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder, named_tensors(model))
    write_description(folder, model.config, tokenizer, dtype=str(dtype_of(model)))


def write_description(
    folder: Path, config: DecoderConfig, tokenizer: Tokenizer, *, dtype: str
) -> None:
    """Writes the files beside the weights; config.json last, which makes it a model."""
    first, *others = tokenizer.eos
    eos: int | list[int] = [first, *others] if others else first
    attributes: dict[str, Any] = {
        **family_of(config).config_to_hf(config, dtype=dtype),
        "bos_token_id": tokenizer.bos[0] if tokenizer.bos else None,
        "eos_token_id": eos,
    }
    tokenizer.save(folder)
    write_json(folder / "generation_config.json", {"eos_token_id": eos})
    write_json(folder / "config.json", attributes)
