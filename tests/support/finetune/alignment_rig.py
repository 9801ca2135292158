"""Algorithm 1 with a scripted engine; its finetuner and its evaluation take notes."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scripted_engine import ScriptedEngine
from tiny_generation import tiny_generator, tiny_prompt_builder
from tiny_llama import TINY, tiny_llama

from isara_jax.align import AlignmentInputs, LoopConfig
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.evaluation.heldout import EvaluationConfig
from isara_jax.examples import Example, HeldOut, Pool
from isara_jax.filters import FilterConfig
from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.trainable import Trainable
from isara_jax.finetuning import Finetuner
from isara_jax.models.checkpoints.load import abstract_model
from isara_jax.models.model_handle import ModelHandle
from isara_jax.retrieval.embed import Embedder
from isara_jax.retrieval.retriever import Retriever
from isara_jax.run.stages import COMPILING
from isara_jax.run.workdir import Workdir
from isara_jax.runtime.files.records import read_json, write_json
from isara_jax.runtime.mesh import make_mesh

QUESTION_TOKENS, ANSWER_TOKENS = 8, 6
SEEDS = Pool(
    round_index=0,
    examples=tuple(
        Example(
            question=f"Is seed {name} a good one ?",
            answer=f"Seed {name} is.",
            origin=f"seed-{number:04d}",
        )
        for number, name in enumerate(("ant", "bee", "cow"))
    ),
)
BASE = tiny_llama()


class Author(ScriptedEngine):
    """Writes a pair that the filter keeps, but for the ids of `bad`."""

    def __init__(self, bad=(), **more):
        super().__init__(**more)
        self.bad = bad

    def completion(self, prompt):
        is_answer = self.decodings[-1].max_new_tokens == ANSWER_TOKENS
        name = prompt.id.replace("-", "answer" if is_answer else "question")
        text = " ".join(f"{name}{word}" for word in range(6))
        return replace(
            super().completion(prompt),
            text="No." if prompt.id in self.bad and is_answer else text,
        )


class Hashed(Embedder):
    """Gives every text a unit vector of its own."""

    def __init__(self):
        pass

    def embed(self, texts):
        seeds = [
            int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts
        ]
        rows = [np.random.default_rng(seed).standard_normal(8) for seed in seeds]
        rows = np.reshape(rows, (len(texts), 8)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@dataclass(frozen=True, kw_only=True)
class NotingFinetuner(Finetuner):
    """Notes what it is to train; the model that it returns has the call's number."""

    notes: list[dict[str, Any]]

    def finetune(self, start, examples, *, round_index, folder, stage):
        model = tiny_llama(seed=100 + len(self.notes))
        self.notes.append(
            {
                "start": start.donate(),
                "result": model,
                "ids": [example.id for example in examples],
                "examples": examples,
                "round": round_index,
                "stage": stage,
            }
        )
        return ModelHandle(lambda: model)


@dataclass
class Rig:
    """A run whose expensive parts take notes, and those notes."""

    inputs: AlignmentInputs
    engine: Author
    evaluated: list[tuple[str, Any]] = field(default_factory=list)

    def evaluate(
        self, model, items, *, name, config, prompt_builder, generator, result
    ):
        if not result.exists():
            self.evaluated.append((name, model()))
            write_json(result, {"model": name})

    @property
    def notes(self):
        return self.inputs.finetuner.notes

    def outcome(self, number):
        return read_json(self.inputs.workdir.round(number).summary)

    def stages(self):
        lines = self.inputs.workdir.stages.read()
        return [line["stage"] for line in lines if line["stage"] != COMPILING]


def tiny_loop(path, *, loop=None, finetuning=None, baselines=False):
    """Returns a run of two rounds of four candidates; the keywords change it."""
    return AlignmentInputs(
        seeds=SEEDS,
        heldout=(HeldOut(question="Who?", true=("I.",), false=("You.",)),),
        loop=LoopConfig(**{"rounds": 2, "candidates": 4, "demos": 3} | (loop or {})),
        question_sampling=SamplingParams(max_new_tokens=QUESTION_TOKENS),
        answer_sampling=SamplingParams(max_new_tokens=ANSWER_TOKENS),
        filters=FilterConfig(),
        evaluation=EvaluationConfig(baselines=baselines),
        prompt_builder=tiny_prompt_builder(context=1024),
        generator=tiny_generator(context=1024),
        retriever=Retriever(Hashed(), method="exact"),
        finetuner=NotingFinetuner(
            trainable=Trainable(
                pretrained=lambda: ModelHandle(lambda: BASE),
                abstract=abstract_model(TINY, dtype="float32"),
            ),
            config=FinetuneConfig(**(finetuning or {})),
            seed=3,
            mesh=make_mesh(data=1, model=1),
            stop_requested=lambda: False,
            notes=[],
        ),
        workdir=Workdir(path),
    )
