"""Adapters as a value, from a folder of PEFT's and into one."""

import dataclasses
from pathlib import Path

import numpy as np

from isara_jax.models.checkpoints.load import placed
from isara_jax.models.families import LanguageModel, ModelConfig
from isara_jax.models.formats.safetensors import write_file
from isara_jax.models.lora.lora import (
    Adapters,
    LowRank,
    abstract_adapters,
    kernel_formats,
)
from isara_jax.models.lora.peft import CONFIG, TENSORS, PeftFolder, adapter_formats
from isara_jax.run.workdir import write_json
from isara_jax.runtime.mesh import Mesh


def read_adapters(peft: PeftFolder, model: LanguageModel, *, mesh: Mesh) -> Adapters:
    """Reads adapters onto the mesh, in the model's dtype; the model may be abstract.

    Raises:
      InputError: a tensor is damaged or mis-shaped.
    """
    adapters = abstract_adapters(
        model, peft.kernels, rank=peft.rank, alpha=peft.scale * peft.rank
    )
    formats = kernel_formats(model.config)

    def read(name: str, pair: LowRank) -> LowRank:
        a, b = adapter_formats(formats[name])
        return LowRank(
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
