"""Where a model's tensors come from: safetensors and Orbax folders, GGUF files.

All are read tensor by tensor, under Hugging Face's names, shapes and dtypes; no pickle
is ever opened.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from isara_jax.errors import InputError
from isara_jax.models.formats.safetensors import tensor_readers
from isara_jax.runtime.checkpoint import read_tensor, stored_tensors

# What safetensors and gguf say of a type that they cannot give to numpy.
UNREADABLE = (SafetensorError, TypeError, AttributeError, NotImplementedError)
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class TensorSource:
    """A model's tensors by their Hugging Face names; `read` loads one of them.

    `path` is the file or folder that holds them, which errors name.
    """

    path: Path
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
                f"{self.path}: the tensor {name!r} does not load ({error})"
            ) from None
        if value.dtype.name not in FLOATS:
            raise InputError(
                f"{self.path}: the tensor {name!r} holds {value.dtype.name}, "
                f"expected one of {', '.join(FLOATS)}"
            )
        return value

    def read_shaped(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Loads one tensor, and checks its shape.

        Raises:
          InputError: as `read`, or the tensor has another shape.
        """
        value = self.read(name)
        if value.shape != shape:
            raise InputError(
                f"{self.path}: the tensor {name!r} has the shape {list(value.shape)}, "
                f"expected {list(shape)}"
            )
        return value


def open_orbax(folder: Path) -> TensorSource:
    """Opens a flat tree of tensors under their Hugging Face names.

    Raises:
      InputError: there is no whole checkpoint, or it is no flat tree.
    """
    names = stored_tensors(folder)
    return TensorSource(
        path=folder,
        readers={name: partial(read_tensor, folder, name) for name in names},
    )


def open_safetensors(folder: Path) -> TensorSource:
    """Opens `model.safetensors`, or else the files that the index names, or else all.

    Raises:
      InputError: there is none, a header is damaged, two files hold a tensor of one
        name, or the index names other files or tensors than there are.
    """
    return TensorSource(path=folder, readers=tensor_readers(folder))
