"""Where a parameter lives in a Hugging Face file, and how it lies there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

# `table`: as here. `vector`: its axes merged into one. `projection`: [out, in] there,
# [in, out...] here. `merging`: [out, in] there, [in..., out] here. `rows`: [out, in]
# there, [out, in...] here.
Layout = Literal["table", "vector", "projection", "merging", "rows"]


@dataclass(frozen=True, kw_only=True)
class TensorMap:
    """A parameter's name in a file, `{}` the layer's number, and its path here."""

    name: str
    path: tuple[str, ...]
    layout: Layout

    @property
    def layered(self) -> bool:
        """Whether the file has a tensor a layer, which are stacked here."""
        return "{}" in self.name

    @property
    def is_kernel(self) -> bool:
        """Whether it is what a layer multiplies its inputs by."""
        return self.layered and self.layout in ("projection", "merging")

    def inputs(self, shape: tuple[int, ...]) -> int:
        """Returns how many of a kernel's axes are inputs; they come first."""
        return 1 if self.layout == "projection" else len(shape) - 1

    def names(self, layers: int) -> Iterator[str]:
        """Yields its names in a file of a model of so many layers."""
        for number in range(layers if self.layered else 1):
            yield self.name.format(number)

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape in the file of a parameter that has this one here."""
        if self.layout == "table":
            return shape
        if self.layout == "vector":
            return (int(np.prod(shape)),)
        if self.layout == "rows":
            return shape[0], int(np.prod(shape[1:]))
        inputs = self.inputs(shape)
        return int(np.prod(shape[inputs:])), int(np.prod(shape[:inputs]))

    def ours(self, read: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Turns what the file holds into the parameter of a layer."""
        if self.layout in ("projection", "merging"):
            read = read.T
        return read.reshape(shape)

    def theirs(self, value: np.ndarray) -> np.ndarray:
        """Turns the parameter of a layer into what the file holds."""
        rows_and_columns = self.their_shape(value.shape)
        if self.layout in ("projection", "merging"):
            value = value.reshape(rows_and_columns[::-1]).T
        # safetensors writes the bytes as they lie
        return np.ascontiguousarray(value.reshape(rows_and_columns))


def layer_format(name: str, ours: str, layout: Layout) -> TensorMap:
    """Describes a parameter that every layer has."""
    return TensorMap(name=name, path=("layers", ours), layout=layout)


def whole_format(name: str, ours: str, layout: Layout = "table") -> TensorMap:
    """Describes a parameter that the model has once."""
    return TensorMap(name=name, path=(ours,), layout=layout)
