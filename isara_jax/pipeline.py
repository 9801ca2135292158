"""Assembles a run from its settings, and writes what it releases."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from isara_jax.align import AlignmentInputs, align
from isara_jax.config import Config
from isara_jax.engine import EngineMetrics
from isara_jax.examples import HeldOut, Pool
from isara_jax.finetune import Trainable, make_trainable
from isara_jax.finetuning import Finetuner
from isara_jax.generation import Generator, make_stop_criteria
from isara_jax.models import ModelHandle
from isara_jax.models.checkpoints import OpenedModel
from isara_jax.prompts import PromptBuilder, make_template
from isara_jax.report import write_report, write_tensorboard
from isara_jax.retrieval import load_retriever
from isara_jax.run import Workdir, finished_rounds, release_dataset, release_model
from isara_jax.runtime import (
    Mesh,
    StopSignal,
    Tokenizer,
    locate,
    make_mesh,
)
from isara_jax.runtime.files import write_jsonl
from isara_jax.runtime.hardware import mesh_peak_rates


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """M_0 before its weights are loaded, and what the rounds train of it."""

    tokenizer: Tokenizer
    context: int
    trainable: Trainable
    mesh: Mesh


def open_base(config: Config, source: OpenedModel) -> BaseModel:
    """Reads a model's tokenizer; its weights are loaded when needed.

    Raises:
      InputError: it is damaged, or does not suit the adapters that are asked for.
    """
    runtime = config.runtime
    mesh = make_mesh(data=runtime.mesh_data, model=runtime.mesh_model)
    return BaseModel(
        tokenizer=source.tokenizer,
        context=source.config.context,
        trainable=make_trainable(
            source,
            config.lora,
            adapter=locate_adapter(config),
            dtype=runtime.dtype,
            seed=runtime.seed,
            mesh=mesh,
        ),
        mesh=mesh,
    )


def locate_adapter(config: Config) -> Path | None:
    """Returns the folder of the adapter that the run begins with, if it has one."""
    return locate(config.source.adapter) if config.source.adapter else None


def prepare(
    config: Config,
    *,
    seeds: Pool,
    heldout: Sequence[HeldOut],
    base: BaseModel,
    workdir: Workdir,
    signal: StopSignal,
) -> AlignmentInputs:
    """Makes the inputs of Algorithm 1."""
    tokenizer, runtime = base.tokenizer, config.runtime
    template = make_template(config.prompts.template, render=tokenizer.render_chat)
    return AlignmentInputs(
        seeds=seeds,
        heldout=heldout,
        loop=config.loop,
        question_sampling=config.question,
        answer_sampling=config.answer,
        filters=config.filters,
        evaluation=config.evaluation,
        prompt_builder=PromptBuilder(
            tokenizer=tokenizer,
            template=template,
            context=base.context,
            demo_tokens=config.prompts.demo_tokens,
            demo_order=config.prompts.demo_order,
        ),
        generator=Generator(
            mesh=base.mesh,
            seed=runtime.seed,
            slots=config.engine.slots,
            context=base.context,
            stop_criteria=make_stop_criteria(tokenizer, template),
            check=signal.check,
            on_metrics=partial(
                write_metrics, workdir, dtype=runtime.dtype, mesh=base.mesh
            ),
        ),
        retriever=load_retriever(config.retrieval),
        finetuner=Finetuner(
            trainable=base.trainable,
            config=config.finetuning,
            saving=config.saving,
            seed=runtime.seed,
            mesh=base.mesh,
            stop_requested=lambda: signal.requested,
        ),
        workdir=workdir,
    )


def write_metrics(
    workdir: Workdir, stage: str, metrics: EngineMetrics, *, dtype: str, mesh: Mesh
) -> None:
    """Appends the engine's metrics of a stage to engine.jsonl."""
    rates = mesh_peak_rates(dtype, devices=mesh.devices.size)
    workdir.engine.append([{"stage": stage, **metrics.record(rates)}])


def write_seeds(workdir: Workdir, seeds: Pool) -> None:
    """Writes the seeds, with their ids, into the run's folder."""
    write_jsonl(
        workdir.seeds,
        [
            {"id": e.origin, "question": e.question, "answer": e.answer}
            for e in seeds.examples
        ],
    )


def align_and_release(
    inputs: AlignmentInputs, *, source: str, licence: str
) -> ModelHandle:
    """Aligns, and writes dataset/, the TensorBoard files, the report and model/.

    model/ comes last: where it exists, the run is finished. `source` names the base.
    Returns the aligned model.
    """
    workdir, aligned = inputs.workdir, align(inputs)
    release_dataset(workdir, rounds=finished_rounds(workdir), base=source)
    write_tensorboard(workdir)
    write_report(workdir)
    release_model(
        workdir,
        aligned(),
        inputs.prompt_builder.tokenizer,
        base=source,
        license=licence,
        adapters=aligned.adapters,
    )
    return aligned
