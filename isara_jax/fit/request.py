"""What is checked: a model, its finetuning and generation, and a machine."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from isara_jax.engine import SamplingParams
from isara_jax.finetune import FinetuneConfig, LoraConfig
from isara_jax.fit.machines import Machine
from isara_jax.models import Decoder, DecoderConfig
from isara_jax.models.checkpoints import abstract_model
from isara_jax.models.lora import abstract_adapters, quantize_model, target_weights
from isara_jax.runtime import Mesh, abstract_on, make_mesh


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """A model, its finetuning and generation, and the machine that they are to fit.

    Of the loop's two generation steps, `sampling_params` are those that need most. The
    step has `prompts` prompts, each with at most `demo_tokens` tokens of
    demonstrations. `slots` are rows of the decode batch; 0 is the platform's default.
    `mesh_data` of -1 takes the devices that `mesh_model` leaves.
    """

    shape: DecoderConfig
    dtype: str
    finetuning: FinetuneConfig
    lora: LoraConfig
    sampling_params: SamplingParams
    demo_tokens: int
    slots: int
    prompts: int
    mesh_data: int
    mesh_model: int
    machine: Machine

    @cached_property
    def mesh(self) -> Mesh:
        """The machine's devices as `mesh_data` x `mesh_model`."""
        return make_mesh(
            data=self.mesh_data, model=self.mesh_model, devices=self.machine.devices
        )

    @cached_property
    def weights(self) -> Decoder:
        """The model as abstract arrays with their shardings."""
        return abstract_on(abstract_model(self.shape, dtype=self.dtype), self.mesh)

    @cached_property
    def base(self) -> Decoder | None:
        """The frozen model under adapters, maybe quantised; None without adapters."""
        if not self.lora.lora_rank:
            return None
        if self.lora.base_dtype == "keep":
            return self.weights
        kind = self.lora.base_dtype
        return quantize_model(self.weights, kind, mesh=self.mesh)

    @cached_property
    def trainable(self) -> Any:
        """The model or its adapters, as abstract arrays.

        Raises:
          InputError: a LoRA target is no weight of the model.
        """
        if self.base is None:
            return self.weights
        return abstract_adapters(
            self.weights,
            target_weights(self.weights, self.lora.targets),
            rank=self.lora.lora_rank,
            alpha=self.lora.lora_alpha,
        )
