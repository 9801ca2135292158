"""Aligns a model to a handful of pairs, and shows what came of it.

    python -m isara_jax.main --flagfile=configs/quickstart.flags

The same command again goes on where a stopped run was. WORKSPACE.md tells what the
run's folder holds.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from absl import app, flags

from isara_jax import config as configuration
from isara_jax.align import Run, align, training_data
from isara_jax.answers import Retriever
from isara_jax.cli import exit_code, parse
from isara_jax.config import Config, config_from_flags, define_flags, result_flags
from isara_jax.examples import HeldOut, Pool, read_heldout, read_seeds
from isara_jax.finetune import first_rows
from isara_jax.finetuning import Tuner, make_trainable
from isara_jax.generation import Sampler
from isara_jax.models.checkpoints import load_config, load_licence
from isara_jax.prompts import make_template
from isara_jax.report import summary_table, write_report, write_tensorboard
from isara_jax.retrieval import load_embedder
from isara_jax.run import (
    Workdir,
    facts,
    finished_rounds,
    release_dataset,
    release_model,
)
from isara_jax.runtime import (
    StopSignal,
    load_tokenizer,
    locate,
    locate_packaged,
    log,
    make_mesh,
)
from isara_jax.runtime.files import write_jsonl
from isara_jax.runtime.hardware import enable_compilation_cache, mesh_rates

define_flags()
flags.adopt_module_key_flags(configuration)


def main(arguments: Sequence[str]) -> int:
    """Runs the job; returns 2 where the input is at fault, 1 where the machine is."""
    return exit_code(
        arguments,
        work=lambda: work(config_from_flags()),
        module="isara_jax.main",
        to_save_memory="--max_slots or --train_batch",
    )


def work(config: Config) -> None:
    """Aligns, releases and reports; a finished run is only reported on again."""
    workdir = Workdir(Path(config.run.workdir))
    seeds_file = locate_packaged(config.run.seeds)
    seeds = read_seeds(seeds_file, at_least=config.loop.demos)
    heldout = locate_packaged(config.run.heldout) if config.run.heldout else None
    items = read_heldout(heldout) if heldout else ()
    model, encoder = locate(config.source.model), locate(config.retrieval.encoder)
    enable_compilation_cache(config.runtime.compilation_cache)
    about = facts(
        model=model,
        encoder=encoder,
        seeds=seeds_file,
        heldout=heldout,
        adapter=locate_adapter(config),
    )
    if config.run.debug_examples:
        show_examples(config, seeds=seeds, model=model, workdir=workdir)
        return
    with workdir.locked(), StopSignal() as signal:
        workdir.open(result_flags(), about)
        if workdir.model.exists():
            log(f"{workdir.path}: this run is finished, nothing is left to do")
        else:
            write_seeds(workdir, seeds)
            run = prepare(
                config,
                seeds=seeds,
                items=items,
                model=model,
                workdir=workdir,
                signal=signal,
            )
            hand_over(run, base=config.source.model, model=model)
    print(f"\n{summary_table(workdir)}\n")
    for path in (workdir.report, workdir.model, workdir.dataset):
        print(path)


def show_examples(
    config: Config, *, seeds: Pool, model: Path, workdir: Workdir
) -> None:
    """Prints rows of the first step on the seeds; the run's folder is not touched."""
    run = prepare(
        config,
        seeds=seeds,
        items=(),
        model=model,
        workdir=workdir,
        signal=StopSignal(),
    )
    lines = first_rows(
        training_data(run, [seeds]),
        rows=config.run.debug_examples,
        config=config.finetuning,
        limit=run.sampler.context,
        seed=config.runtime.seed,
        mesh=run.sampler.mesh,
        spell=run.sampler.tokenizer.spell,
    )
    for line in lines:
        print(line)


def write_seeds(workdir: Workdir, seeds: Pool) -> None:
    """Keeps the seeds beside what was made from them, with their ids."""
    write_jsonl(
        workdir.seeds,
        [
            {"id": e.origin, "question": e.question, "answer": e.answer}
            for e in seeds.examples
        ],
    )


def prepare(
    config: Config,
    *,
    seeds: Pool,
    items: Sequence[HeldOut],
    model: Path,
    workdir: Workdir,
    signal: StopSignal,
) -> Run:
    """Puts together what Algorithm 1 is given; the model is loaded when needed."""
    shape, tokenizer = load_config(model), load_tokenizer(model)
    mesh = make_mesh(data=config.runtime.mesh_data, model=config.runtime.mesh_model)

    rates = partial(mesh_rates, config.runtime.dtype, devices=mesh.devices.size)
    sampler = Sampler(
        tokenizer=tokenizer,
        template=make_template(config.prompts.template, render=tokenizer.render_chat),
        mesh=mesh,
        seed=config.runtime.seed,
        slots=config.engine.slots,
        demo_tokens=config.prompts.demo_tokens,
        demo_order=config.prompts.demo_order,
        context=shape.context,
        check=signal.check,
        report=lambda stage, figures: workdir.engine.append(
            [{"stage": stage, **figures.record(rates())}]
        ),
    )
    trainable = make_trainable(
        model,
        config.lora,
        adapter=locate_adapter(config),
        dtype=config.runtime.dtype,
        seed=config.runtime.seed,
        mesh=mesh,
    )
    return Run(
        seeds=seeds,
        heldout=items,
        base=trainable.start,
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
            abstract=trainable.abstract,
            base=trainable.base,
            config=config.finetuning,
            saving=config.saving,
            seed=config.runtime.seed,
            mesh=mesh,
            stop_requested=lambda: signal.requested,
        ),
        workdir=workdir,
    )


def locate_adapter(config: Config) -> Path | None:
    """Returns where the adapter lies that the run begins with, if there is one."""
    return locate(config.source.adapter) if config.source.adapter else None


def hand_over(run: Run, *, base: str, model: Path) -> None:
    """Aligns, and writes dataset/, the TensorBoard files, the report and model/.

    model/ comes last: where it is, the run is finished.
    """
    aligned = align(run)
    release_dataset(run.workdir, rounds=finished_rounds(run.workdir), base=base)
    write_tensorboard(run.workdir)
    write_report(run.workdir)
    release_model(
        run.workdir,
        aligned(),
        run.sampler.tokenizer,
        base=base,
        license=load_licence(model),
        adapters=aligned.adapters,
    )


def run() -> None:
    """Starts the command."""
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    run()
