"""Adapters as PEFT writes them down: adapter_config.json, adapter_model.safetensors.

A setting that changes what adapters compute, and is not computed here, stops the
reading; what has adapters follows from the tensors' names.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from isara_jax.errors import InputError
from isara_jax.models.families import LanguageModel, ModelConfig
from isara_jax.models.formats import (
    ConfigReader,
    TensorMap,
    Weights,
    open_safetensors,
    placed,
    write_file,
)
from isara_jax.models.lora.lora import (
    Adapters,
    LoraPair,
    abstract_adapters,
    kernel_formats,
)
from isara_jax.runtime import Mesh
from isara_jax.runtime.files import read_json, write_json

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# What says nothing of the arithmetic, and what the tensors' names say as well.
IGNORED = frozenset(
    "task_type auto_mapping base_model_name_or_path revision inference_mode "
    "peft_version lora_dropout megatron_core qalora_group_size runtime_config "
    "target_modules exclude_modules layers_to_transform layers_pattern".split()
)
READ = frozenset("peft_type r lora_alpha use_rslora init_lora_weights".split())
# How A and B may have begun; other ways change the base too.
BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva")
NOTHING: tuple[Any, ...] = (None, False, "none", {}, [])


@dataclass(frozen=True, kw_only=True)
class PeftFolder:
    """A folder of adapters that fit a model, none of which is read yet."""

    weights: Weights
    kernels: tuple[str, ...]
    rank: int
    scale: float

    def delta(self, name: str) -> np.ndarray | None:
        """Returns what the adapters add to a tensor of the model's file, in fp32.

        Raises:
          InputError: one of the two tensors is damaged or mis-shaped.
        """
        a_name, b_name = (_adapter_name(name, letter) for letter in "AB")
        if a_name not in self.weights.readers:
            return None
        a, b = (self.weights.read(one).astype(np.float32) for one in (a_name, b_name))
        if a.ndim != 2 or b.ndim != 2 or not len(a) == b.shape[1] == self.rank:
            raise InputError(
                f"{self.weights.source}: {a_name!r} and {b_name!r} have the shapes "
                f"{list(a.shape)} and {list(b.shape)}, no adapter of rank {self.rank}"
            )
        delta: np.ndarray = np.float32(self.scale) * (b @ a)
        return delta


def open_peft(folder: Path, config: ModelConfig) -> PeftFolder:
    """Opens adapters for a model of this configuration.

    Raises:
      InputError: a file is missing or damaged, a setting is not computed here, or the
        tensors are not those of the model's kernels.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: no {CONFIG} in the folder, so no PEFT adapter")
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object")
    a = ConfigReader(place=path, values=values)
    a.require("peft_type", "LORA")
    for name in sorted(values.keys() - IGNORED - READ):
        if values[name] not in NOTHING:
            raise a.error(name, values[name], "a setting that is not computed here")
    begun = values.get("init_lora_weights")
    if begun not in BEGINNINGS:
        raise a.error("init_lora_weights", begun, "a beginning that changes the base")
    rank, alpha = a.whole("r"), a.real("lora_alpha")
    root = a.flag("use_rslora", default=False)
    weights = open_safetensors(folder)
    return PeftFolder(
        weights=weights,
        kernels=_kernels(weights, config),
        rank=rank,
        scale=alpha / (math.sqrt(rank) if root else rank),
    )


def with_adapters(weights: Weights, peft: PeftFolder) -> Weights:
    """Returns the model's tensors with the adapters added, in fp32 where there are."""

    def read(name: str, reader: Callable[[], np.ndarray]) -> np.ndarray:
        delta = peft.delta(name)
        if delta is None:
            return reader()
        tensor = reader()
        if tensor.shape != delta.shape:
            raise InputError(
                f"{peft.weights.source}: the adapter of {name!r} is for the shape "
                f"{list(delta.shape)}, the model's is {list(tensor.shape)}"
            )
        return tensor.astype(np.float32) + delta

    readers = {
        name: partial(read, name, reader) for name, reader in weights.readers.items()
    }
    return Weights(source=weights.source, readers=readers)


def _kernels(weights: Weights, config: ModelConfig) -> tuple[str, ...]:
    """Returns the kernels that have adapters, and refuses tensors of none of them."""
    found, known = [], set()
    for kernel, tensor in kernel_formats(config).items():
        names = [
            name for own in adapter_formats(tensor) for name in own.names(config.layers)
        ]
        present = weights.readers.keys() & set(names)
        known |= present
        if present:
            found.append(kernel)
        if present and len(present) < len(names):
            missing = next(name for name in names if name not in present)
            raise InputError(f"{weights.source}: the tensor {missing!r} is missing")
    unknown = sorted(weights.readers.keys() - known)
    if unknown or not found:
        raise InputError(
            f"{weights.source}: {unknown[0]!r} adapts no kernel of the model's layers"
            if unknown
            else f"{weights.source}: holds no adapter"
        )
    return tuple(found)


def adapter_formats(kernel: TensorMap) -> tuple[TensorMap, TensorMap]:
    """Returns where a kernel's A, [r, in] in a file, and B, [out, r], live."""
    (own,) = kernel.path[-1:]
    return (
        TensorMap(name=_adapter_name(kernel.name, "A"), path=(own, "a"), layout="rows"),
        TensorMap(
            name=_adapter_name(kernel.name, "B"), path=(own, "b"), layout="projection"
        ),
    )


def _adapter_name(tensor: str, letter: str) -> str:
    return f"{PREFIX}{tensor.removesuffix('.weight')}.lora_{letter}.weight"


def read_adapters(peft: PeftFolder, model: LanguageModel, *, mesh: Mesh) -> Adapters:
    """Reads adapters onto the mesh, in the model's dtype; the model may be abstract.

    Raises:
      InputError: a tensor is damaged or mis-shaped.
    """
    adapters = abstract_adapters(
        model, peft.kernels, rank=peft.rank, alpha=peft.scale * peft.rank
    )
    formats = kernel_formats(model.config)

    def read(name: str, pair: LoraPair) -> LoraPair:
        a, b = adapter_formats(formats[name])
        return LoraPair(
            a=pair.a.replace(placed(peft.weights, a, pair.a, mesh=mesh)),
            b=pair.b.replace(placed(peft.weights, b, pair.b, mesh=mesh)),
        )

    pairs = {name: read(name, pair) for name, pair in adapters.kernels.items()}
    return dataclasses.replace(adapters, kernels=pairs)


def write_adapters(
    folder: Path, adapters: Adapters, config: ModelConfig, *, base: str
) -> None:
    """Writes what `peft.PeftModel.from_pretrained` reads.

    Raises:
      EnvironmentFailure: the disk does not take it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    formats = kernel_formats(config)
    tensors = {
        name: tensor.theirs(np.asarray(variable.get_value()[number]))
        for kernel, pair in adapters.kernels.items()
        for tensor, variable in zip(
            adapter_formats(formats[kernel]), (pair.a, pair.b), strict=True
        )
        for number, name in enumerate(tensor.names(config.layers))
    }
    write_file(folder / TENSORS, tensors)
    modules = [formats[kernel].name.split(".")[-2] for kernel in adapters.kernels]
    attributes = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": adapters.rank,
        "lora_alpha": adapters.alpha,
        "lora_dropout": 0.0,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
    }
    write_json(folder / CONFIG, attributes)
