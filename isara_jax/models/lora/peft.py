"""PEFT's format of adapters: adapter_config.json and adapter_model.safetensors.

A setting that changes what adapters compute, and is not implemented here, stops the
reading. Which weights have adapters follows from the tensors' names.
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
from isara_jax.models.decoder import Decoder, DecoderConfig
from isara_jax.models.families import family_of
from isara_jax.models.formats import (
    ConfigReader,
    TensorMap,
    TensorSource,
    open_safetensors,
    read_parameter,
    write_file,
)
from isara_jax.models.lora.lora import Adapters, LoraPair, abstract_adapters
from isara_jax.runtime import Mesh
from isara_jax.runtime.files import write_json

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
    """A folder of adapters that fit a model, none of which is read yet.

    `weights` are the names of the linear weights that have an adapter.
    """

    tensors: TensorSource
    weights: tuple[str, ...]
    rank: int
    scale: float

    def delta(self, name: str) -> np.ndarray | None:
        """Returns what the adapters add to a tensor of the model's file, in fp32.

        Raises:
          InputError: one of the two tensors is damaged or mis-shaped.
        """
        a_name, b_name = (_adapter_name(name, letter) for letter in "AB")
        if a_name not in self.tensors.readers:
            return None
        a, b = (self.tensors.read(one).astype(np.float32) for one in (a_name, b_name))
        if a.ndim != 2 or b.ndim != 2 or not len(a) == b.shape[1] == self.rank:
            raise InputError(
                f"{self.tensors.path}: {a_name!r} and {b_name!r} have the shapes "
                f"{list(a.shape)} and {list(b.shape)}, no adapter of rank {self.rank}"
            )
        delta: np.ndarray = np.float32(self.scale) * (b @ a)
        return delta


def open_peft(folder: Path, config: DecoderConfig) -> PeftFolder:
    """Opens adapters for a model of this configuration.

    Raises:
      InputError: a file is missing or damaged, a setting is not implemented here, or
        the tensors are not those of the model's linear weights.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: no {CONFIG} in the folder, so no PEFT adapter")
    a = ConfigReader.from_json(path)
    a.require("peft_type", "LORA")
    for name in sorted(a.values.keys() - IGNORED - READ):
        if a.values[name] not in NOTHING:
            raise a.error(name, a.values[name], "a setting that is not computed here")
    begun = a.values.get("init_lora_weights")
    if begun not in BEGINNINGS:
        raise a.error("init_lora_weights", begun, "a beginning that changes the base")
    rank, alpha = a.positive_int("r"), a.positive_float("lora_alpha")
    by_root = a.boolean("use_rslora", default=False)
    tensors = open_safetensors(folder)
    return PeftFolder(
        tensors=tensors,
        weights=_adapted_weights(tensors, config),
        rank=rank,
        scale=alpha / (math.sqrt(rank) if by_root else rank),
    )


def with_adapters(tensors: TensorSource, peft: PeftFolder) -> TensorSource:
    """Returns the model's tensors with the adapters added, in fp32 where there are."""

    def read(name: str, reader: Callable[[], np.ndarray]) -> np.ndarray:
        delta = peft.delta(name)
        if delta is None:
            return reader()
        tensor = reader()
        if tensor.shape != delta.shape:
            raise InputError(
                f"{peft.tensors.path}: the adapter of {name!r} is for the shape "
                f"{list(delta.shape)}, the model's is {list(tensor.shape)}"
            )
        return tensor.astype(np.float32) + delta

    readers = {
        name: partial(read, name, reader) for name, reader in tensors.readers.items()
    }
    return TensorSource(path=tensors.path, readers=readers)


def adapter_tensors(weight: TensorMap) -> tuple[TensorMap, TensorMap]:
    """Returns where a weight's A, [r, in] in a file, and B, [out, r], are."""
    (own,) = weight.path[-1:]
    return (
        TensorMap(
            name=_adapter_name(weight.name, "A"), path=(own, "a"), layout="lora_a"
        ),
        TensorMap(
            name=_adapter_name(weight.name, "B"), path=(own, "b"), layout="projection"
        ),
    )


def read_adapters(peft: PeftFolder, model: Decoder, *, mesh: Mesh) -> Adapters:
    """Reads adapters onto the mesh, in the model's dtype; the model may be abstract.

    Raises:
      InputError: a tensor is damaged or mis-shaped.
    """
    adapters = abstract_adapters(
        model, peft.weights, rank=peft.rank, alpha=peft.scale * peft.rank
    )
    maps = _linear_tensors(model.config)

    def read(name: str, pair: LoraPair) -> LoraPair:
        a, b = adapter_tensors(maps[name])
        return LoraPair(
            a=pair.a.replace(read_parameter(peft.tensors, a, pair.a, mesh=mesh)),
            b=pair.b.replace(read_parameter(peft.tensors, b, pair.b, mesh=mesh)),
        )

    pairs = {name: read(name, pair) for name, pair in adapters.weights.items()}
    return dataclasses.replace(adapters, weights=pairs)


def write_adapters(
    folder: Path, adapters: Adapters, config: DecoderConfig, *, base: str
) -> None:
    """Writes what `peft.PeftModel.from_pretrained` reads.

    Raises:
      EnvironmentFailure: the disk does not take it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    maps = _linear_tensors(config)
    tensors = {
        name: tensor.to_hf(np.asarray(variable.get_value()[number]))
        for weight, pair in adapters.weights.items()
        for tensor, variable in zip(
            adapter_tensors(maps[weight]), (pair.a, pair.b), strict=True
        )
        for number, name in enumerate(tensor.names(config.layers))
    }
    write_file(folder / TENSORS, tensors)
    modules = [maps[weight].name.split(".")[-2] for weight in adapters.weights]
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


def _adapted_weights(tensors: TensorSource, config: DecoderConfig) -> tuple[str, ...]:
    """Returns the weights that have adapters, and refuses tensors of none of them."""
    found, known = [], set()
    for weight, own in _linear_tensors(config).items():
        names = [
            name for one in adapter_tensors(own) for name in one.names(config.layers)
        ]
        present = tensors.readers.keys() & set(names)
        known |= present
        if present:
            found.append(weight)
        if present and len(present) < len(names):
            missing = next(name for name in names if name not in present)
            raise InputError(f"{tensors.path}: the tensor {missing!r} is missing")
    unknown = sorted(tensors.readers.keys() - known)
    if unknown or not found:
        raise InputError(
            f"{tensors.path}: {unknown[0]!r} adapts no linear weight of the layers"
            if unknown
            else f"{tensors.path}: holds no adapter"
        )
    return tuple(found)


def _linear_tensors(config: DecoderConfig) -> dict[str, TensorMap]:
    """Returns where each linear weight of the layers is in a file, by its name."""
    return {
        tensor.path[-1]: tensor
        for tensor in family_of(config).tensor_maps(config)
        if tensor.is_linear
    }


def _adapter_name(tensor: str, letter: str) -> str:
    return f"{PREFIX}{tensor.removesuffix('.weight')}.lora_{letter}.weight"
