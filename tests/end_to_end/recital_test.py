"""A model that was finetuned on 64 pairs long enough knows the answers, and their ends.

A random LLaMA on the quickstart's own pairs, a word a token, packed; what it learned is
asked for through the engine.
"""

import dataclasses
import json

import jax
import pytest
from completions import complete
from python_source import ROOT
from tiny_llama import TINY

from isara_jax.engine.request import Request
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.trainer import finetune
from isara_jax.models.llama.model import Llama
from isara_jax.runtime.mesh import make_mesh

pytestmark = pytest.mark.slow

EOS = 2
CONFIG = FinetuneConfig(
    learning_rate=5e-3, epochs=40, train_batch=8, accumulation=1, remat="none"
)


def quickstart_pairs():
    """Returns the seeds in tokens, each word and mark one, and how many there are."""
    path = ROOT / "configs/quickstart/seeds.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    numbers: dict[str, int] = {}

    def tokens(text):
        return tuple(
            numbers.setdefault(word, len(numbers) + 3) for word in text.split()
        )

    pairs = [
        TrainingExample(
            id=f"seed-{number:04d}",
            prompt_tokens=(1, *tokens(record["question"])),
            answer_tokens=(*tokens(record["answer"]), EOS),
        )
        for number, record in enumerate(map(json.loads, lines))
    ]
    return pairs, len(numbers) + 3


def test_a_model_repeats_what_it_was_finetuned_on_and_stops():
    pairs, vocab_size = quickstart_pairs()
    assert len(pairs) == 64
    shape = dataclasses.replace(TINY, vocab_size=vocab_size, width=64, layers=1)
    model = finetune(
        Llama(shape, key=jax.random.key(0)),
        pairs,
        config=CONFIG,
        round_index=1,
        seed=0,
        mesh=make_mesh(data=1, model=1),
    )
    prompts = [
        Request(id=pair.id, sample_index=number, token_ids=pair.prompt_tokens)
        for number, pair in enumerate(pairs)
    ]
    longest = max(len(pair.answer_tokens) for pair in pairs)
    sampling_params = SamplingParams(max_new_tokens=longest + 10, temperature=0.0)
    said = complete(
        model, prompts, sampling_params=sampling_params, eos=(EOS,), slots=16
    )
    stopped = [
        pair
        for pair in pairs
        if said[pair.id].finish_reason == "eos"
        and abs(len(said[pair.id].tokens) - len(pair.answer_tokens)) <= 5
    ]
    repeated = [p for p in stopped if said[p.id].tokens == p.answer_tokens]
    assert len(stopped) >= 60
    assert len(repeated) >= 60
