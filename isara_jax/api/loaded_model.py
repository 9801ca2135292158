"""A language model in memory, with all that text needs."""

from dataclasses import dataclass
from pathlib import Path

import jax

from isara_jax.errors import InputError
from isara_jax.models import Decoder, DecoderConfig
from isara_jax.models.checkpoints import (
    load_model as load_weights,
    open_model,
    save_hugging_face,
)
from isara_jax.runtime import (
    Mesh,
    Tokenizer,
    dtype_of,
    locate,
    make_mesh,
)
from isara_jax.runtime.files import atomic_dir


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A language model in memory: weights, tokenizer, licence, and the mesh it is on.

    It is a value: finetuning returns another one, and leaves this one as it is.

    Attributes:
      weights: the Flax NNX module, a pytree.
      tokenizer: text to token ids and back.
      mesh: the devices that hold the weights.
      source: what it was loaded from; of a finetuned model, what it was made from.
      licence: what the model's card says, or an empty text.
    """

    weights: Decoder
    tokenizer: Tokenizer
    mesh: Mesh
    source: str
    licence: str = ""

    @property
    def config(self) -> DecoderConfig:
        """The model's shape."""
        return self.weights.config

    @property
    def dtype(self) -> str:
        """The name of the dtype of weights and arithmetic."""
        return str(dtype_of(self.weights))

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.weights))

    def save(self, folder: str | Path) -> Path:
        """Writes a Hugging Face folder: safetensors, config, tokenizer.

        Raises:
          InputError: the folder exists.
          EnvironmentFailure: the disk does not take it.
        """
        target = Path(folder)
        if target.exists():
            raise InputError(f"{target}: exists already; choose another folder")
        with atomic_dir(target) as path:
            save_hugging_face(path, self.weights, self.tokenizer)
        return target

    def __repr__(self) -> str:
        return (
            f"LoadedModel({self.source!r}, {type(self.weights).__name__} of "
            f"{self.parameters / 1e6:.1f}M parameters, {self.dtype})"
        )


ModelLike = LoadedModel | str | Path
"""A loaded model, or the source from which `load_model` loads it."""


def load_model(
    source: str | Path,
    *,
    dtype: str = "bfloat16",
    adapter: str | Path = "",
    mesh_data: int = -1,
    mesh_model: int = 1,
) -> LoadedModel:
    """Loads a language model of the LLaMA or OPT family.

    Args:
      source: a Hugging Face folder, a `.gguf` file, an Orbax folder, a hub id, or
        `package:NAME` for weights that an installed Python distribution ships.
      dtype: of weights and arithmetic, `bfloat16` or `float32`.
      adapter: a folder or hub id of an adapter in PEFT's format, merged into the
        weights as they are read; empty: none.
      mesh_data: devices over which batches and weights are split; -1: all that
        `mesh_model` leaves.
      mesh_model: devices over which heads and feed-forwards are split.

    Raises:
      InputError: there is no such model, it is damaged or of another family, or it has
        a score head and so writes no text.
      EnvironmentFailure: the hub did not deliver it.
    """
    opened = open_model(locate(str(source)))
    if opened.config.score is not None:
        raise InputError(
            f"{source}: the model has a score head ({opened.config.score.labels} "
            "labels), so it writes no text; give a language model"
        )
    if adapter:
        opened = opened.with_adapter(locate(str(adapter)))
    mesh = make_mesh(data=mesh_data, model=mesh_model)
    return LoadedModel(
        weights=load_weights(opened, dtype=dtype, mesh=mesh),
        tokenizer=opened.tokenizer,
        mesh=mesh,
        source=str(source),
        licence=opened.licence,
    )


def loaded(model: ModelLike) -> LoadedModel:
    """Returns the model, loaded if it is a source."""
    return model if isinstance(model, LoadedModel) else load_model(model)
