"""The train step as a program, from abstract arrays."""

import jax.numpy as jnp

from isara_jax.finetune import (
    TrainBatch,
    TrainingExample,
    abstract_batch,
    abstract_state,
    plan_batches,
    train_step,
)
from isara_jax.fit.bounds import step_work
from isara_jax.fit.program import Program, frozen_base_bytes
from isara_jax.fit.request import FitRequest
from isara_jax.runtime import (
    abstract_keys,
    abstract_replicated,
    abstract_sharded,
    bytes_on_device,
)


def train_program(request: FitRequest) -> Program:
    """Returns the train step, with every example as long as `max_length`."""
    config, mesh = request.finetuning, request.mesh
    length = min(config.max_length, request.shape.context)
    count = config.train_batch * config.accumulation
    examples = [
        TrainingExample(id="", prompt_tokens=(0,), answer_tokens=(0,) * (length - 1))
    ] * count
    shape = plan_batches(
        examples, config=config, epochs=1, round_index=1, seed=0, mesh=mesh
    ).shape
    state = abstract_state(request.trainable, config=config, mesh=mesh)
    batch = TrainBatch(
        *(
            abstract_sharded(array.shape, array.dtype, mesh)
            for array in abstract_batch(shape)
        )
    )
    return Program(
        name=f"train step, {shape.micro_batches} x {shape.rows} rows of {shape.length}",
        unit="step",
        argument_bytes={
            "parameters": bytes_on_device(state.model),
            "optimizer state": bytes_on_device(state.optimizer),
            "batch": bytes_on_device(batch),
        }
        | frozen_base_bytes(request),
        resident_bytes={},
        work=step_work(
            request,
            examples=count,
            length=length - 1,
            micro_batches=shape.micro_batches,
            state=bytes_on_device(state),
        ),
        lower=lambda: train_step.lower(
            state,
            batch,
            learning_rate=abstract_replicated((), jnp.float32, mesh),
            key=abstract_keys((), mesh),
            config=config,
            dtype=jnp.dtype(request.dtype),
            mesh=mesh,
            base=request.base,
        ),
    )
