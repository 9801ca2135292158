"""A run from its settings: what Algorithm 1 is given, and what it hands over."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from isara_jax.align import Run, align
from isara_jax.answers import Retriever
from isara_jax.config import Config
from isara_jax.examples import HeldOut, Pool
from isara_jax.finetuning import Trainable, Tuner, make_trainable
from isara_jax.generation import Sampler
from isara_jax.models import ModelHandle
from isara_jax.models.checkpoints import OpenedModel
from isara_jax.prompts import make_template
from isara_jax.report import write_report, write_tensorboard
from isara_jax.retrieval import load_embedder
from isara_jax.run import Workdir, finished_rounds, release_dataset, release_model
from isara_jax.runtime import (
    Mesh,
    StopSignal,
    Tokenizer,
    locate,
    make_mesh,
)
from isara_jax.runtime.files import write_jsonl
from isara_jax.runtime.hardware import mesh_rates


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """M_0, as far as it is needed before its weights, and how they are trained."""

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
    """Returns where the adapter lies that the run begins with, if there is one."""
    return locate(config.source.adapter) if config.source.adapter else None


def prepare(
    config: Config,
    *,
    seeds: Pool,
    items: Sequence[HeldOut],
    base: BaseModel,
    workdir: Workdir,
    signal: StopSignal,
) -> Run:
    """Puts together what Algorithm 1 is given."""
    rates = partial(mesh_rates, config.runtime.dtype, devices=base.mesh.devices.size)
    sampler = Sampler(
        tokenizer=base.tokenizer,
        template=make_template(
            config.prompts.template, render=base.tokenizer.render_chat
        ),
        mesh=base.mesh,
        seed=config.runtime.seed,
        slots=config.engine.slots,
        demo_tokens=config.prompts.demo_tokens,
        demo_order=config.prompts.demo_order,
        context=base.context,
        check=signal.check,
        report=lambda stage, figures: workdir.engine.append(
            [{"stage": stage, **figures.record(rates())}]
        ),
    )
    return Run(
        seeds=seeds,
        heldout=items,
        base=base.trainable.start,
        loop=config.loop,
        question_sampling=config.question,
        answer_sampling=config.answer,
        filters=config.filters,
        evaluation=config.evaluation,
        sampler=sampler,
        retriever=Retriever(
            embedder=load_embedder(config.retrieval.encoder),
            method=config.retrieval.retrieval,
        ),
        tuner=Tuner(
            abstract=base.trainable.abstract,
            base=base.trainable.base,
            config=config.finetuning,
            saving=config.saving,
            seed=config.runtime.seed,
            mesh=base.mesh,
            stop_requested=lambda: signal.requested,
        ),
        workdir=workdir,
    )


def write_seeds(workdir: Workdir, seeds: Pool) -> None:
    """Keeps the seeds beside what was made from them, with their ids."""
    write_jsonl(
        workdir.seeds,
        [
            {"id": e.origin, "question": e.question, "answer": e.answer}
            for e in seeds.examples
        ],
    )


def hand_over(run: Run, *, source: str, licence: str) -> ModelHandle:
    """Aligns, and writes dataset/, the TensorBoard files, the report and model/.

    model/ comes last: where it is, the run is finished. The base is known as `source`.
    Returns the aligned model.
    """
    aligned = align(run)
    release_dataset(run.workdir, rounds=finished_rounds(run.workdir), base=source)
    write_tensorboard(run.workdir)
    write_report(run.workdir)
    release_model(
        run.workdir,
        aligned(),
        run.sampler.tokenizer,
        base=source,
        license=licence,
        adapters=aligned.adapters,
    )
    return aligned
