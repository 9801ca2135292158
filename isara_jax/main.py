"""Aligns a model to seed pairs by Algorithm 1, and reports on the result.

    python -m isara_jax.main --flagfile=configs/quickstart.flags

The same command again resumes a stopped run. WORKSPACE.md lists the files of a run's
folder.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from isara_jax import config as configuration
from isara_jax.align import training_data
from isara_jax.cli import exit_code, parse
from isara_jax.config import Config, config_from_flags, define_flags, result_settings
from isara_jax.examples import Pool, read_heldout, read_seeds
from isara_jax.finetune import preview_rows
from isara_jax.models.checkpoints import OpenedModel, open_model
from isara_jax.pipeline import (
    align_and_release,
    locate_adapter,
    open_base,
    prepare,
    write_seeds,
)
from isara_jax.report import summary_table
from isara_jax.run import Workdir, hash_inputs, provenance
from isara_jax.runtime import StopSignal, locate, locate_packaged, log
from isara_jax.runtime.hardware import enable_compilation_cache

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
    """Aligns, releases and reports; of a finished run only the report is printed."""
    workdir = Workdir(Path(config.run.workdir))
    seeds_file = locate_packaged(config.run.seeds)
    seeds = read_seeds(seeds_file, at_least=config.loop.demos)
    heldout_file = locate_packaged(config.run.heldout) if config.run.heldout else None
    heldout = read_heldout(heldout_file) if heldout_file else ()
    model = open_model(locate(config.source.model))
    encoder = locate(config.retrieval.encoder)
    enable_compilation_cache(config.runtime.compilation_cache)
    hashes = hash_inputs(
        model=model.path,
        encoder=encoder,
        seeds=seeds_file,
        heldout=heldout_file,
        adapter=locate_adapter(config),
    )
    if config.run.debug_examples:
        print_examples(config, seeds=seeds, model=model, workdir=workdir)
        return
    with workdir.locked(), StopSignal() as signal:
        workdir.open(result_settings(config), provenance(hashes))
        if workdir.model.exists():
            log(f"{workdir.path}: this run is finished, nothing is left to do")
        else:
            write_seeds(workdir, seeds)
            inputs = prepare(
                config,
                seeds=seeds,
                heldout=heldout,
                base=open_base(config, model),
                workdir=workdir,
                signal=signal,
            )
            align_and_release(inputs, source=config.source.model, licence=model.licence)
    print(f"\n{summary_table(workdir)}\n")
    for path in (workdir.report, workdir.model, workdir.dataset):
        print(path)


def print_examples(
    config: Config, *, seeds: Pool, model: OpenedModel, workdir: Workdir
) -> None:
    """Prints rows of the first step on the seeds; the run's folder is not touched."""
    inputs = prepare(
        config,
        seeds=seeds,
        heldout=(),
        base=open_base(config, model),
        workdir=workdir,
        signal=StopSignal(),
    )
    lines = preview_rows(
        training_data(inputs, [seeds]),
        rows=config.run.debug_examples,
        config=config.finetuning,
        limit=inputs.generator.context,
        seed=config.runtime.seed,
        mesh=inputs.generator.mesh,
        spell=inputs.prompt_builder.tokenizer.spell,
    )
    for line in lines:
        print(line)


def run() -> None:
    """Starts the command."""
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    run()
