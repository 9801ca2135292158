import dataclasses

import jax
import pytest
from tiny_llama import TINY

from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.lora_config import LoraConfig
from isara_jax.fit.machines.machine import Machine
from isara_jax.fit.request import FitRequest


@pytest.fixture(scope="session")
def fit_request():
    """Returns a question about the tiny LLaMA on some of the fake devices."""

    def asked(*, memory=1 << 30, devices=8, finetuning=None, lora=None, **changes):
        machine = Machine(
            name="some devices",
            devices=jax.devices()[:devices],
            memory=memory,
            flops=1e9,
            bandwidth=1e9,
            interconnect=None,
        )
        tuned = {"train_batch": 8, "accumulation": 2, "max_length": 64}
        base = FitRequest(
            shape=TINY,
            dtype="float32",
            finetuning=FinetuneConfig(**(tuned | (finetuning or {}))),
            lora=LoraConfig(**(lora or {})),
            sampling_params=SamplingParams(max_new_tokens=8),
            demo_tokens=0,
            slots=8,
            prompts=12,
            mesh_data=-1,
            mesh_model=1,
            machine=machine,
        )
        return dataclasses.replace(base, **changes)

    return asked
