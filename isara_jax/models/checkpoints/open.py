"""A model's files, opened once: the headers are read, the weights are not."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from isara_jax.errors import InputError
from isara_jax.models.checkpoints.card import licence_of_card
from isara_jax.models.decoder import DecoderConfig
from isara_jax.models.families import family_named, family_of, gguf_format
from isara_jax.models.formats import (
    ConfigReader,
    TensorSource,
    open_orbax,
    open_safetensors,
)
from isara_jax.models.lora import PeftFolder, open_peft, with_adapters
from isara_jax.runtime import ORBAX, GgufFile, Tokenizer, load_tokenizer, read_gguf


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """A model whose files are open; what it does not need yet it has not read.

    `path` is a folder of Hugging Face's or Orbax's, or a GGUF file, whose header is
    `gguf`. With an `adapter`, the tensors are those of the merged model.
    """

    path: Path
    config: DecoderConfig
    gguf: GgufFile | None = None
    adapter: PeftFolder | None = None

    @cached_property
    def tensors(self) -> TensorSource:
        """The tensors by their Hugging Face names, exactly those of the model.

        Raises:
          InputError: a file is damaged, or a tensor is missing or unknown.
        """
        tensors = self._stored_tensors()
        _validate_names(tensors, self.config)
        return with_adapters(tensors, self.adapter) if self.adapter else tensors

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
          InputError: there is none, or it is damaged, or has no end-of-text token.
        """
        return load_tokenizer(self.gguf or self.path)

    @cached_property
    def licence(self) -> str:
        """The licence that the GGUF file or the model card states, or an empty text."""
        if self.gguf is not None:
            return str(self.gguf.metadata.get("general.license", ""))
        return licence_of_card(self.path / "README.md")

    def with_adapter(self, folder: Path) -> "OpenedModel":
        """Returns the model with a PEFT adapter merged into its tensors.

        Raises:
          InputError: the folder is damaged, or its adapter is not for this model.
        """
        return replace(self, adapter=open_peft(folder, self.config))

    def _stored_tensors(self) -> TensorSource:
        if self.gguf is not None:
            return gguf_format(self.gguf).open_tensors(self.gguf, self.config)
        if (self.path / ORBAX).is_dir() and not any(self.path.glob("*.safetensors*")):
            return open_orbax(self.path / ORBAX)
        return open_safetensors(self.path)


def open_model(path: Path, *, adapter: Path | None = None) -> OpenedModel:
    """Opens a Hugging Face folder, an Orbax folder or a GGUF file.

    An `adapter`, a folder of PEFT's, is merged into the tensors as they are read.

    Raises:
      InputError: the architecture or an attribute is unknown, a file is damaged, or
        the adapter is not for this model.
    """
    opened = _open_gguf(path) if path.suffix == ".gguf" else _open_folder(path)
    return opened if adapter is None else opened.with_adapter(adapter)


def _open_gguf(path: Path) -> OpenedModel:
    file = read_gguf(path)
    config = gguf_format(file).read_config(file)
    return OpenedModel(path=path, config=config, gguf=file)


def _open_folder(path: Path) -> OpenedModel:
    if not (path / "config.json").is_file():
        raise InputError(f"{path}: no config.json in the folder")
    a = ConfigReader.from_json(path / "config.json")
    return OpenedModel(path=path, config=family_named(a).config_from_hf(a))


def _validate_names(tensors: TensorSource, config: DecoderConfig) -> None:
    # One by one, so that an absurd count of layers ends at the first one missing.
    family, known = family_of(config), set()
    for tensor in family.tensor_maps(config):
        for name in tensor.names(config.layers):
            if name not in tensors.readers:
                raise InputError(f"{tensors.path}: the tensor {name!r} is missing")
            known.add(name)
    if config.tied_head:
        known.add("lm_head.weight")
    unknown = sorted(set(tensors.readers) - known)
    if unknown:
        raise InputError(
            f"{tensors.path}: the tensor {unknown[0]!r} is unknown to {family.label} "
            f"of {config.layers} layers"
        )
