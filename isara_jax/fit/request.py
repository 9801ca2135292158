"""What is asked about: a model, how it is trained and written with, and on what."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from isara_jax.engine import SamplingParams
from isara_jax.finetune import FinetuneConfig, LoraConfig
from isara_jax.fit.machines import Machine
from isara_jax.models import LanguageModel, ModelConfig
from isara_jax.models.checkpoints import abstract_model
from isara_jax.models.lora import abstract_adapters, quantised_model, targeted
from isara_jax.runtime import Mesh, abstract_on, make_mesh


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """What is compiled. `prompts` is how many a step of the loop has.

    Of `sampling_params` the step is taken that needs most; a prompt has `demo_tokens`
    and its open turn. Slots of 0 are as many as suit the platform.
    """

    shape: ModelConfig
    dtype: str
    finetuning: FinetuneConfig
    adapters: LoraConfig
    sampling_params: SamplingParams
    demo_tokens: int
    slots: int
    prompts: int
    data: int
    model: int
    machine: Machine

    @cached_property
    def mesh(self) -> Mesh:
        """The machine's devices, laid out as they are asked to be."""
        return make_mesh(data=self.data, model=self.model, devices=self.machine.devices)

    @cached_property
    def weights(self) -> LanguageModel:
        """The model's shapes with their places on the mesh."""
        return abstract_on(abstract_model(self.shape, dtype=self.dtype), self.mesh)

    @cached_property
    def base(self) -> LanguageModel | None:
        """What stays as it is while adapters are trained on it, if they are."""
        if not self.adapters.lora_rank:
            return None
        if self.adapters.base_dtype == "keep":
            return self.weights
        kind = self.adapters.base_dtype
        return quantised_model(self.weights, kind, mesh=self.mesh)

    @cached_property
    def trained(self) -> Any:
        """What is trained: the model, or adapters on the base.

        Raises:
          InputError: --lora_targets are none of the model's.
        """
        if self.base is None:
            return self.weights
        return abstract_adapters(
            self.weights,
            targeted(self.weights, self.adapters.targets),
            rank=self.adapters.lora_rank,
            alpha=self.adapters.lora_alpha,
        )


def bytes_on_device(tree: Any) -> int:
    """Returns what abstract arrays take on a device, by their shapes and shardings."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape
        total += math.prod(shape) * _bits(leaf.dtype) // 8
    return total


def _bits(dtype: Any) -> int:
    """Returns the bits of a number; those of less than a byte lie side by side."""
    is_whole = jnp.issubdtype(dtype, jnp.integer)
    bits: int = jnp.iinfo(dtype).bits if is_whole else 8 * dtype.itemsize
    return bits
