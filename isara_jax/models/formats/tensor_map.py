"""Maps between a parameter and its tensors in a Hugging Face file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

# How a parameter of a layer with the axes [*inputs, *outputs] lies in a file:
# `same`: as it is. `flat`: all axes merged into one. `projection`: [out, in], of one
# input axis. `merge_heads`: [out, in], of one output axis. `lora_a`: [r, in], of the
# axes [r, *inputs].
Layout = Literal["same", "flat", "projection", "merge_heads", "lora_a"]


@dataclass(frozen=True, kw_only=True)
class TensorMap:
    """A parameter's name in a file, and its path in the model.

    `{}` in the name stands for the number of a layer. The file then has a tensor for
    each layer; the model stacks them along the first axis.
    """

    name: str
    path: tuple[str, ...]
    layout: Layout

    @property
    def stacked(self) -> bool:
        """Whether the file has a tensor for each layer."""
        return "{}" in self.name

    @property
    def is_linear(self) -> bool:
        """Whether it is the weight of a linear map of a layer."""
        return self.stacked and self._is_transposed

    def names(self, layers: int) -> Iterator[str]:
        """Yields its names in a file of a model of so many layers."""
        for number in range(layers if self.stacked else 1):
            yield self.name.format(number)

    def hf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape in the file of a layer's parameter of this shape."""
        if self.layout == "same":
            return shape
        if self.layout == "flat":
            return (int(np.prod(shape)),)
        if self.layout == "lora_a":
            return shape[0], int(np.prod(shape[1:]))
        inputs = 1 if self.layout == "projection" else len(shape) - 1
        return int(np.prod(shape[inputs:])), int(np.prod(shape[:inputs]))

    def from_hf(self, stored: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Turns a tensor of the file into a layer's parameter of this shape."""
        if self._is_transposed:
            stored = stored.T
        return stored.reshape(shape)

    def to_hf(self, value: np.ndarray) -> np.ndarray:
        """Turns a layer's parameter into the tensor of the file."""
        shape = self.hf_shape(value.shape)
        if self._is_transposed:
            value = value.reshape(shape[::-1]).T
        # safetensors writes the bytes as they lie
        return np.ascontiguousarray(value.reshape(shape))

    @property
    def _is_transposed(self) -> bool:
        return self.layout in ("projection", "merge_heads")


def layer_tensor(name: str, parameter: str, layout: Layout) -> TensorMap:
    """Maps a parameter that every layer has."""
    return TensorMap(name=name, path=("layers", parameter), layout=layout)


def model_tensor(name: str, parameter: str, layout: Layout = "same") -> TensorMap:
    """Maps a parameter that the model has once."""
    return TensorMap(name=name, path=(parameter,), layout=layout)
