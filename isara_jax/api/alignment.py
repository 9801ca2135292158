"""Aligns a model to seed pairs by Algorithm 1, in memory or in a run's folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

from isara_jax.align import LoopConfig, align as run_algorithm
from isara_jax.api.evaluating import Evaluation, evaluation_in
from isara_jax.api.inputs import HeldOutItems, Pairs, heldout_of, seeds_of
from isara_jax.api.loaded_model import LoadedModel, ModelLike, load_model, loaded
from isara_jax.config import SECTIONS, Config, RunConfig, result_settings
from isara_jax.engine import EngineConfig, SamplingParams
from isara_jax.evaluation import EvaluationConfig
from isara_jax.examples import Example, HeldOut, Pool
from isara_jax.filters import FilterConfig
from isara_jax.finetune import (
    CheckpointConfig,
    FinetuneConfig,
    LoraConfig,
    trainable_in_memory,
)
from isara_jax.models.checkpoints import named_tensors
from isara_jax.pipeline import BaseModel, align_and_release, prepare, write_seeds
from isara_jax.prompts import PromptConfig
from isara_jax.report import summary_table
from isara_jax.retrieval import RetrievalConfig
from isara_jax.run import (
    Workdir,
    finished_rounds,
    hash_bytes,
    hash_tensors,
    hash_weights,
    provenance,
)
from isara_jax.runtime import ModelSource, RuntimeConfig, StopSignal, locate
from isara_jax.runtime.files import Records

IN_MEMORY = "(in memory)"


def _paper(section: Literal["question", "answer"]) -> SamplingParams:
    return SamplingParams(**SECTIONS[section].defaults)


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """The settings of `align`; the defaults are the paper's (docs/method.md).

    Attributes:
      loop: rounds, candidates a round, demonstrations a prompt, and when to stop.
      question: how questions are sampled.
      answer: how answers are sampled.
      filters: which candidates are kept.
      finetuning: how a round finetunes.
      lora: with a `lora_rank`, adapters are trained instead of the whole model.
      saving: when a finetuning saves its state in the run's folder.
      evaluation: how models are evaluated on the held-out items.
      prompts: the template of conversations, and the budget of demonstrations.
      retrieval: the sentence encoder that finds demonstrations.
      engine: how many prompts are decoded at once.
      seed: of all randomness.
    """

    loop: LoopConfig = field(default_factory=LoopConfig)
    question: SamplingParams = field(default_factory=lambda: _paper("question"))
    answer: SamplingParams = field(default_factory=lambda: _paper("answer"))
    filters: FilterConfig = field(default_factory=FilterConfig)
    finetuning: FinetuneConfig = field(default_factory=FinetuneConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    saving: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    seed: int = 42


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """What a run of Algorithm 1 made.

    Attributes:
      model: the aligned model.
      kept: the pairs that the model wrote and the filter kept, of all rounds. An
        example's `origin` names its round and number: `r01-0003`.
      evaluations: by model (`pretrained`, `SFT on the seeds`, `ISARA round 1`, ...);
        empty without held-out items.
      summary: a table of the evaluations, what each round kept, and the verdict.
      workdir: the run's folder with the report, or None.
    """

    model: LoadedModel
    kept: tuple[Example, ...]
    evaluations: Mapping[str, Evaluation]
    summary: str
    workdir: Path | None


def align(
    seeds: Pairs,
    model: ModelLike,
    config: AlignConfig | None = None,
    *,
    heldout: HeldOutItems | None = None,
    workdir: str | Path | None = None,
) -> Alignment:
    """Aligns a model to seed pairs; the model that is given stays as it is.

    Args:
      seeds: (question, answer) tuples, mappings of the two, `Example` values, or the
        path of a JSONL file; at least as many as a prompt holds demonstrations.
      model: a loaded model, or a source of `load_model`.
      config: rounds, sampling, filter, training; None: the paper's.
      heldout: items that every round's model is evaluated on, as for `evaluate`, beside
        the pretrained model and one finetuned on the seeds alone; None: no evaluation.
      workdir: the run's folder, which is kept, with records, checkpoints, report, model
        and data set. The same call again goes on where a stopped one was. None: a
        temporary folder, which is removed at the end.

    Raises:
      InputError: the seeds, the held-out items or the settings break a rule, or the
        folder holds another run.
      EnvironmentFailure: the machine stopped the run.

    Example:
      loop = isara.LoopConfig(rounds=1, candidates=8, demos=2)
      result = isara.align(seeds, model, isara.AlignConfig(loop=loop), heldout=items)
      print(result.summary)
    """
    config = config or AlignConfig()
    pool = seeds_of(seeds, at_least=config.loop.demos)
    items = () if heldout is None else heldout_of(heldout)
    model = loaded(model)
    if workdir is not None:
        kept = Path(workdir)
        return _align_in(kept, pool, items, model=model, config=config, keep=True)
    with TemporaryDirectory(prefix="isara_jax_") as folder:
        return _align_in(
            Path(folder) / "run", pool, items, model=model, config=config, keep=False
        )


def _align_in(
    path: Path,
    seeds: Pool,
    items: tuple[HeldOut, ...],
    *,
    model: LoadedModel,
    config: AlignConfig,
    keep: bool,
) -> Alignment:
    workdir, settings = Workdir(path), _settings(config, model, path)
    with workdir.locked():
        hashes = _hashes(seeds, items, model=model, encoder=config.retrieval.encoder)
        workdir.open(result_settings(settings), provenance(hashes))
        if workdir.model.exists():
            aligned = _released(workdir, model)
        else:
            write_seeds(workdir, seeds)
            inputs = prepare(
                settings,
                seeds=seeds,
                heldout=items,
                base=_base(model, config),
                workdir=workdir,
                signal=StopSignal(),
            )
            if keep:
                handle = align_and_release(
                    inputs, source=model.source, licence=model.licence
                )
            else:
                handle = run_algorithm(inputs)
            aligned = replace(model, weights=handle())
        return Alignment(
            model=aligned,
            kept=_kept(workdir),
            evaluations=_evaluations(workdir),
            summary=summary_table(workdir),
            workdir=path if keep else None,
        )


def _settings(config: AlignConfig, model: LoadedModel, workdir: Path) -> Config:
    """Returns the settings of the command that would do the same."""
    sections = {
        one: getattr(config, one)
        for one in AlignConfig.__dataclass_fields__
        if one != "seed"
    }
    return Config(
        run=RunConfig(workdir=str(workdir), seeds=IN_MEMORY),
        source=ModelSource(model=model.source),
        runtime=RuntimeConfig(seed=config.seed, dtype=cast(Any, model.dtype)),
        **sections,
    )


def _base(model: LoadedModel, config: AlignConfig) -> BaseModel:
    return BaseModel(
        tokenizer=model.tokenizer,
        context=model.config.context,
        trainable=trainable_in_memory(
            model.weights, config.lora, seed=config.seed, mesh=model.mesh
        ),
        mesh=model.mesh,
    )


def _hashes(
    seeds: Pool, items: tuple[HeldOut, ...], *, model: LoadedModel, encoder: str
) -> dict[str, str]:
    hashes = {
        "model": hash_tensors(named_tensors(model.weights)),
        "encoder": hash_weights(locate(encoder)),
        "seeds": _hash_values(seeds.examples),
    }
    return hashes | ({"heldout": _hash_values(items)} if items else {})


def _hash_values(values: tuple[Any, ...]) -> str:
    return hash_bytes(json.dumps([asdict(value) for value in values]).encode())


def _released(workdir: Workdir, base: LoadedModel) -> LoadedModel:
    """Loads the model that a finished run has left, onto the base's devices."""
    sizes = base.mesh.shape
    released = load_model(
        workdir.model,
        dtype=base.dtype,
        mesh_data=sizes["data"],
        mesh_model=sizes["model"],
    )
    return replace(base, weights=released.weights)


def _kept(workdir: Workdir) -> tuple[Example, ...]:
    return tuple(
        Example(
            question=record["question"], answer=record["answer"], origin=record["id"]
        )
        for t in range(1, finished_rounds(workdir) + 1)
        for record in Records(workdir.round(t).kept).read()
    )


def _evaluations(workdir: Workdir) -> dict[str, Evaluation]:
    folders = [workdir.baseline("pretrained"), workdir.baseline("sft")]
    folders += [workdir.round(t) for t in range(1, finished_rounds(workdir) + 1)]
    found = [evaluation_in(f.evaluation) for f in folders if f.evaluation.exists()]
    return {evaluation.model: evaluation for evaluation in found}
