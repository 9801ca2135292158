"""Finetunes a loaded model on pairs, in memory."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from isara_jax.align import training_example
from isara_jax.api.inputs import Pairs, examples_of
from isara_jax.api.loaded_model import LoadedModel, ModelLike, loaded
from isara_jax.api.prompting import prompt_builder_of, template_of
from isara_jax.config import validate_master_dtype
from isara_jax.finetune import (
    FinetuneConfig,
    LoraConfig,
    StepMetrics,
    TrainingHooks,
    finetune as train,
    trainable_in_memory,
)
from isara_jax.finetuning import planned_steps
from isara_jax.models.lora import merge
from isara_jax.prompts import TemplateName
from isara_jax.runtime import progress


def finetune(
    model: ModelLike,
    examples: Pairs,
    config: FinetuneConfig | None = None,
    *,
    lora: LoraConfig | None = None,
    template: TemplateName = "paper",
    seed: int = 42,
    on_step: Callable[[StepMetrics], None] | None = None,
) -> LoadedModel:
    """Returns the model finetuned on pairs; the one that is given stays as it is.

    The loss is that of the answers' tokens and of the end of text after them.

    Args:
      model: a loaded model, or a source of `load_model`.
      examples: (question, answer) tuples, mappings of the two, `Example` values, or
        the path of a JSONL file.
      config: how it is trained; None: as a round of the paper, one epoch.
      lora: with a `lora_rank`, adapters are trained and merged into the model.
      template: how a pair is written, as for `evaluate`.
      seed: of all randomness.
      on_step: called with the metrics of each optimizer step.

    Raises:
      InputError: a pair lacks a text, every pair is too long, or the configs do not
        suit the model.
      FloatingPointError: a step's loss or gradient is not finite.

    Example:
        pairs = [("What boils at 100 degrees?", "Water does, at sea level.")]
        config = isara.FinetuneConfig(learning_rate=1e-4, epochs=2, accumulation=1)
        tuned = isara.finetune(model, pairs, config, template="chat")
    """
    pairs, model = examples_of(examples), loaded(model)
    config = config or FinetuneConfig()
    validate_master_dtype(config, dtype=model.dtype)
    trainable = trainable_in_memory(
        model.weights, lora or LoraConfig(), seed=seed, mesh=model.mesh
    )
    prompt_builder = prompt_builder_of(model, template_of(model, template))
    data = [training_example(prompt_builder, pair) for pair in pairs]
    steps = planned_steps(config, examples=len(data))
    with progress("finetuning", total=steps, done=0, unit="steps") as advance:
        trained = train(
            trainable.pretrained().donate(),
            data,
            config=config,
            round_index=1,
            seed=seed,
            mesh=model.mesh,
            base=trainable.base() if trainable.base else None,
            hooks=TrainingHooks(
                on_step=partial(_step, advance=advance, on_step=on_step)
            ),
        )
    if trainable.base is not None:
        trained = merge(model.weights, trained, mesh=model.mesh)
    return replace(model, weights=trained)


def _step(
    metrics: StepMetrics,
    *,
    advance: Callable[[int], None],
    on_step: Callable[[StepMetrics], None] | None,
) -> None:
    advance(1)
    if on_step is not None:
        on_step(metrics)
