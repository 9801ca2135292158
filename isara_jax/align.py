"""Algorithm 1: a model aligns itself to seed pairs, round after round.

See docs/method.md, "The algorithm", and arXiv 2401.06785. Every statement of the loop
leaves its result in the run's folder, and finds it there when the run is started again,
so a killed run resumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from isara_jax.answers import answer_questions
from isara_jax.engine import SamplingParams
from isara_jax.errors import FieldError
from isara_jax.evaluation import EvaluationConfig, evaluate
from isara_jax.examples import Candidate, Example, HeldOut, Pool, Question
from isara_jax.filters import FilterConfig, keep
from isara_jax.finetune import TrainingExample
from isara_jax.finetuning import Finetuner
from isara_jax.generation import Generator
from isara_jax.models import ModelHandle
from isara_jax.prompts import PromptBuilder
from isara_jax.questions import draft_questions
from isara_jax.retrieval import Retriever
from isara_jax.run import RoundFolder, Workdir, time_stage
from isara_jax.runtime import log
from isara_jax.runtime.files import write_json

PRETRAINED = "pretrained"
SFT = "SFT on the seeds"


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The numbers of Algorithm 1."""

    rounds: int = field(default=2, metadata={"help": "T: the most rounds"})
    candidates: int = field(
        default=512, metadata={"help": "n: pairs that a round generates"}
    )
    demos: int = field(
        default=8, metadata={"help": "K: demonstrations in a prompt of round 1"}
    )
    questions_per_context: int = field(
        default=1,
        metadata={
            "help": "questions written after the same demonstrations, which are then "
            "computed once; 1, the paper's, draws demonstrations for each"
        },
    )
    alpha: float = field(
        default=0.0,
        metadata={
            "help": "stop after a round that keeps less than this share of its "
            "candidates; 0 runs all rounds, as the paper's scripts do"
        },
    )

    def __post_init__(self) -> None:
        for name in ("candidates", "questions_per_context"):
            if getattr(self, name) < 1:
                raise FieldError(name, getattr(self, name), "must be at least 1")
        if not 1 <= self.rounds <= self.demos:
            raise FieldError(
                "rounds",
                self.rounds,
                f"must be from 1 to `demos`={self.demos}, as every later pool takes a "
                "demonstration's place",
            )
        if not 0 <= self.alpha <= 1:
            raise FieldError("alpha", self.alpha, "must be from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class AlignmentInputs:
    """What Algorithm 1 is given: its data, the settings of its steps, and a folder."""

    seeds: Pool
    heldout: Sequence[HeldOut]
    loop: LoopConfig
    question_sampling: SamplingParams
    answer_sampling: SamplingParams
    filters: FilterConfig
    evaluation: EvaluationConfig
    prompt_builder: PromptBuilder
    generator: Generator
    retriever: Retriever
    finetuner: Finetuner
    workdir: Workdir

    def pretrained(self) -> ModelHandle:
        """Returns a handle of M_0."""
        return self.finetuner.trainable.pretrained()


def align(inputs: AlignmentInputs) -> ModelHandle:
    """Runs Algorithm 1 and returns the last round's model.

    Before it, the baselines are evaluated that the model has to beat.

    Raises:
      StopRequested: the run was asked to stop; the same call resumes it.
    """
    evaluate_baselines(inputs)
    pools, model = [inputs.seeds], inputs.pretrained()
    for t in range(1, inputs.loop.rounds + 1):
        folder = inputs.workdir.round(t)
        questions = draft(inputs, model, pools, folder=folder)
        candidates = answer(inputs, model, questions, pools, folder=folder)
        kept = keep(candidates, pools, config=inputs.filters, folder=folder)
        data = training_data(inputs, [*pools, kept])
        if data:
            model = finetune(
                inputs, model, data, round_index=t, folder=folder, name=f"round {t}"
            )
            evaluate_model(inputs, model, name=f"ISARA round {t}", folder=folder)
        if should_stop(inputs, kept, round_index=t, trained=bool(data), folder=folder):
            break
        pools.append(kept)
    return model


def draft(
    inputs: AlignmentInputs,
    model: ModelHandle,
    pools: Sequence[Pool],
    *,
    folder: RoundFolder,
) -> list[Question]:
    """Step (a): M_{t-1} writes questions after random demonstrations."""
    with time_stage(inputs.workdir, folder, "questions") as totals:
        questions = draft_questions(
            model,
            pools,
            candidates=inputs.loop.candidates,
            demos=inputs.loop.demos,
            questions_per_context=inputs.loop.questions_per_context,
            sampling_params=inputs.question_sampling,
            prompt_builder=inputs.prompt_builder,
            generator=inputs.generator,
            folder=folder,
        )
        totals.add_samples(folder.questions)
    return questions


def answer(
    inputs: AlignmentInputs,
    model: ModelHandle,
    questions: Sequence[Question],
    pools: Sequence[Pool],
    *,
    folder: RoundFolder,
) -> list[Candidate]:
    """Step (b): M_{t-1} answers them after their nearest neighbours."""
    with time_stage(inputs.workdir, folder, "answers") as totals:
        candidates = answer_questions(
            model,
            questions,
            pools,
            demos=inputs.loop.demos,
            sampling_params=inputs.answer_sampling,
            prompt_builder=inputs.prompt_builder,
            generator=inputs.generator,
            retriever=inputs.retriever,
            folder=folder,
        )
        totals.add_samples(folder.answers)
    return candidates


def training_data(
    inputs: AlignmentInputs, pools: Sequence[Pool]
) -> list[TrainingExample]:
    """Returns what round t trains on, chosen of D_0 ... D_t, in token ids."""
    chosen: dict[str, Sequence[Pool]] = {
        "seeds_and_latest": [pools[0], pools[-1]] if len(pools) > 1 else pools,
        "cumulative": pools,
        "latest": pools[-1:],
    }
    return [
        training_example(inputs.prompt_builder, example)
        for pool in chosen[inputs.finetuner.config.train_data]
        for example in pool.examples
    ]


def training_example(
    prompt_builder: PromptBuilder, example: Example
) -> TrainingExample:
    """Writes a pair in token ids: its open turn, then the answer and EOS."""
    text = prompt_builder.template.answer_prompt(example.question)
    return TrainingExample(
        id=example.origin,
        prompt_tokens=prompt_builder.zero_shot(text).token_ids,
        answer_tokens=prompt_builder.completion_ids(example.answer),
    )


def finetune(
    inputs: AlignmentInputs,
    model: ModelHandle,
    data: Sequence[TrainingExample],
    *,
    round_index: int,
    folder: RoundFolder,
    name: str,
) -> ModelHandle:
    """Step (d): finetunes M_{t-1}, or M_0 again, into M_t."""
    if inputs.finetuner.config.start_from == "base":
        model.unload()
        model = inputs.pretrained()
    with time_stage(inputs.workdir, folder, "finetuning") as totals:
        finetuned = inputs.finetuner.finetune(
            model,
            data,
            round_index=round_index,
            folder=folder,
            stage=f"{name}: finetuning",
        )
        totals.items = len(data)
        totals.tokens = sum(len(example) for example in data)
    return finetuned


def evaluate_model(
    inputs: AlignmentInputs, model: ModelHandle, *, name: str, folder: RoundFolder
) -> None:
    """Evaluates a model on the held-out set."""
    with time_stage(inputs.workdir, folder, "evaluation") as totals:
        evaluate(
            model,
            inputs.heldout,
            name=name,
            config=inputs.evaluation,
            prompt_builder=inputs.prompt_builder,
            generator=inputs.generator,
            result=folder.evaluation,
        )
        totals.items = len(inputs.heldout)


def evaluate_baselines(inputs: AlignmentInputs) -> None:
    """Evaluates what ISARA has to beat: M_0, and M_0 finetuned on D_0 alone."""
    if not inputs.evaluation.baselines or not inputs.heldout:
        return
    model = inputs.pretrained()
    folder = inputs.workdir.baseline("pretrained")
    evaluate_model(inputs, model, name=PRETRAINED, folder=folder)
    folder = inputs.workdir.baseline("sft")
    data = [training_example(inputs.prompt_builder, e) for e in inputs.seeds.examples]
    model = finetune(inputs, model, data, round_index=1, folder=folder, name=SFT)
    evaluate_model(inputs, model, name=SFT, folder=folder)


def should_stop(
    inputs: AlignmentInputs,
    kept: Pool,
    *,
    round_index: int,
    trained: bool,
    folder: RoundFolder,
) -> bool:
    """Applies the stopping rule, kept / generated < alpha, and records its numbers.

    The loop also stops where there was nothing to train on.
    """
    generated, alpha = inputs.loop.candidates, inputs.loop.alpha
    rate = len(kept) / generated
    below = rate < alpha
    if not trained:
        reason = "nothing was kept, so there is nothing to train on"
    elif below:
        reason = f"kept {rate:.1%} of the candidates, less than alpha = {alpha:.1%}"
    elif round_index == inputs.loop.rounds:
        reason = f"all {round_index} rounds are done"
    else:
        reason = f"kept {rate:.1%} of the candidates, at least alpha = {alpha:.1%}"
    stop = below or not trained
    if not folder.summary.exists():
        write_json(
            folder.summary,
            {
                "round": round_index,
                "generated": generated,
                "kept": len(kept),
                "keep_rate": rate,
                "alpha": alpha,
                "stop": stop,
                "reason": reason,
            },
        )
        log(f"round {round_index}: kept {len(kept)} of {generated}; {reason}")
    return stop
