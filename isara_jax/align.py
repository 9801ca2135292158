"""Algorithm 1: the model aligns itself to the seeds, round after round (PAPER.md 1).

Every statement of the loop leaves its result in the run's folder and finds it there
when the run is started again, so a killed run goes on where it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from isara_jax.answers import Retriever, answer_questions
from isara_jax.engine import SamplingParams
from isara_jax.errors import FieldError
from isara_jax.evaluation import EvaluationConfig, evaluate
from isara_jax.examples import Candidate, Example, HeldOut, Pool, Question
from isara_jax.filters import FilterConfig, keep
from isara_jax.finetune import TrainingExample
from isara_jax.finetuning import Tuner
from isara_jax.generation import Sampler
from isara_jax.models import ModelHandle
from isara_jax.questions import draft_questions
from isara_jax.run import RoundFolder, Workdir, timed
from isara_jax.runtime import log
from isara_jax.runtime.files import write_json

PRETRAINED = "pretrained"
SFT = "SFT on the seeds"


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The loop's own numbers."""

    rounds: int = field(default=2, metadata={"help": "T: rounds at the most"})
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
        if self.candidates < 1:
            raise FieldError("candidates", self.candidates, "must be at least 1")
        if self.questions_per_context < 1:
            raise FieldError(
                "questions_per_context",
                self.questions_per_context,
                "must be at least 1",
            )
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
class Run:
    """What Algorithm 1 is given."""

    seeds: Pool
    heldout: Sequence[HeldOut]
    base: Callable[[], ModelHandle]
    loop: LoopConfig
    question_sampling: SamplingParams
    answer_sampling: SamplingParams
    filters: FilterConfig
    evaluation: EvaluationConfig
    sampler: Sampler
    retriever: Retriever
    tuner: Tuner
    workdir: Workdir


def align(run: Run) -> ModelHandle:
    """Runs Algorithm 1 and returns the last round's model."""
    measure_baselines(run)
    pools, model = [run.seeds], run.base()
    for t in range(1, run.loop.rounds + 1):
        here = run.workdir.round(t)
        questions = draft(run, model, pools, folder=here)
        candidates = answer(run, model, questions, pools, folder=here)
        kept = keep(candidates, pools, config=run.filters, folder=here)
        data = training_data(run, [*pools, kept])
        if data:
            model = tune(
                run, model, data, round_index=t, folder=here, name=f"round {t}"
            )
            measure(run, model, name=f"ISARA round {t}", folder=here)
        if stops(run, kept=len(kept), trained=bool(data), round_index=t, folder=here):
            break
        pools.append(kept)
    return model


def draft(
    run: Run, model: ModelHandle, pools: Sequence[Pool], *, folder: RoundFolder
) -> list[Question]:
    """Step (a): M_{t-1} writes questions after random demonstrations."""
    with timed(run.workdir, folder, "questions") as spent:
        questions = draft_questions(
            model,
            pools,
            candidates=run.loop.candidates,
            demos=run.loop.demos,
            questions_per_context=run.loop.questions_per_context,
            sampling_params=run.question_sampling,
            sampler=run.sampler,
            folder=folder,
        )
        spent.count_samples(folder.questions)
    return questions


def answer(
    run: Run,
    model: ModelHandle,
    questions: Sequence[Question],
    pools: Sequence[Pool],
    *,
    folder: RoundFolder,
) -> list[Candidate]:
    """Step (b): M_{t-1} answers them after their nearest neighbours."""
    with timed(run.workdir, folder, "answers") as spent:
        candidates = answer_questions(
            model,
            questions,
            pools,
            demos=run.loop.demos,
            sampling_params=run.answer_sampling,
            sampler=run.sampler,
            retriever=run.retriever,
            folder=folder,
        )
        spent.count_samples(folder.answers)
    return candidates


def training_data(run: Run, pools: Sequence[Pool]) -> list[TrainingExample]:
    """Chooses of D_0 ... D_t what round t trains on, and writes it in token ids."""
    chosen: dict[str, Sequence[Pool]] = {
        "seeds_and_latest": [pools[0], pools[-1]] if len(pools) > 1 else pools,
        "cumulative": pools,
        "latest": pools[-1:],
    }
    examples = [
        example
        for pool in chosen[run.tuner.config.train_data]
        for example in pool.examples
    ]
    return [training_example(run.sampler, example) for example in examples]


def training_example(sampler: Sampler, example: Example) -> TrainingExample:
    """Writes a pair in token ids: its open turn, then the answer and its end."""
    opening = sampler.template.open_answer(example.question)
    prompt = sampler.prompt(opening, id=example.origin, number=0)
    return TrainingExample(
        id=example.origin,
        prompt_tokens=prompt.token_ids,
        answer_tokens=sampler.answer_tokens(example.answer),
    )


def tune(
    run: Run,
    model: ModelHandle,
    data: Sequence[TrainingExample],
    *,
    round_index: int,
    folder: RoundFolder,
    name: str,
) -> ModelHandle:
    """Step (d): finetunes M_{t-1}, or the base again, into M_t."""
    if run.tuner.config.start_from == "base":
        model.drop()
        model = run.base()
    with timed(run.workdir, folder, "finetuning") as spent:
        tuned = run.tuner.finetuned(
            model,
            data,
            round_index=round_index,
            folder=folder,
            stage=f"{name}: finetuning",
        )
        spent.items = len(data)
        spent.tokens = sum(len(example) for example in data)
    return tuned


def measure(run: Run, model: ModelHandle, *, name: str, folder: RoundFolder) -> None:
    """Evaluates a model on the held-out set."""
    with timed(run.workdir, folder, "evaluation") as spent:
        evaluate(
            model,
            run.heldout,
            name=name,
            config=run.evaluation,
            sampler=run.sampler,
            result=folder.evaluation,
        )
        spent.items = len(run.heldout)


def measure_baselines(run: Run) -> None:
    """Evaluates what ISARA has to beat: M_0, and M_0 finetuned on D_0 alone."""
    if not run.evaluation.baselines or not run.heldout:
        return
    base = run.base()
    measure(run, base, name=PRETRAINED, folder=run.workdir.baseline("pretrained"))
    folder = run.workdir.baseline("sft")
    seeds = [training_example(run.sampler, example) for example in run.seeds.examples]
    tuned = tune(run, base, seeds, round_index=1, folder=folder, name=SFT)
    measure(run, tuned, name=SFT, folder=folder)


def stops(
    run: Run, *, kept: int, trained: bool, round_index: int, folder: RoundFolder
) -> bool:
    """Applies the stopping rule, kept / generated < alpha, and logs its numbers."""
    generated, alpha = run.loop.candidates, run.loop.alpha
    rate = kept / generated
    below = rate < alpha
    if not trained:
        reason = "nothing was kept, so there is nothing to train on"
    elif below:
        reason = f"kept {rate:.1%} of the candidates, less than alpha = {alpha:.1%}"
    elif round_index == run.loop.rounds:
        reason = f"all {round_index} rounds are done"
    else:
        reason = f"kept {rate:.1%} of the candidates, at least alpha = {alpha:.1%}"
    summary = {
        "round": round_index,
        "generated": generated,
        "kept": kept,
        "keep_rate": rate,
        "alpha": alpha,
        "stop": below or not trained,
        "reason": reason,
    }
    if not folder.summary.exists():
        write_json(folder.summary, summary)
        log(f"round {round_index}: kept {kept} of {generated}; {reason}")
    return below or not trained
