"""Prompts of random tokens, and the engine's whole way from prompts to completions."""

import dataclasses

import jax
import numpy as np
import pytest

from isara_jax.engine.engine import Engine
from isara_jax.engine.request import Request
from isara_jax.engine.sampling.completion import StopCriteria
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.engine.scoring.likelihood import LoglikelihoodRequest, loglikelihood
from isara_jax.runtime.mesh import make_mesh, model_shardings


def random_prompts(*lengths, vocabulary=97):
    """The tokens of a prompt depend on its place and length only."""
    return [
        Request(
            id=f"r01-{number:04d}",
            sample_index=number,
            token_ids=tuple(
                np.random.default_rng((number, length))
                .integers(0, vocabulary, length)
                .tolist()
            ),
        )
        for number, length in enumerate(lengths)
    ]


# 70 tokens fall into the next bucket of prompt lengths.
PROMPTS = random_prompts(1, 5, 70, 12, 30, 3, 12, 8)
# Two families of prompts that share a prefix of 64 tokens or more.
SHARING = [
    dataclasses.replace(
        prompt,
        token_ids=tuple(token % 97 for token in range(first, first + 70))
        + prompt.token_ids[:12],
        sample_index=100 + 10 * first + prompt.sample_index,
        id=f"{first}-{prompt.id}",
    )
    for first in (3, 50)
    for prompt in PROMPTS
]
GREEDY = SamplingParams(max_new_tokens=20, temperature=0.0)
SAMPLED = SamplingParams(
    max_new_tokens=20,
    temperature=0.9,
    top_k=30,
    top_p=0.9,
    repetition_penalty=1.1,
    no_repeat_ngram=3,
)
EVERY_RULE = {
    "repetition_penalty": 1.3,
    "no_repeat_ngram": 2,
    "min_new_tokens": 3,
    "length_decay_start": 6,
    "length_decay_factor": 1.02,
}


def letters(ids):
    """A text of one letter a token."""
    return "".join(chr(0x4E00 + id) for id in ids)


def one_device():
    return make_mesh(data=1, model=1)


def place(model, mesh):
    return jax.device_put(model, model_shardings(model, mesh))


def complete(
    model,
    prompts,
    *,
    sampling_params,
    slots=8,
    eos=(),
    stops=(),
    decode=letters,
    mesh=None,
    check=lambda: None,
    done=(),
    metrics=None,
    parity=None,
):
    """Returns every prompt's completion by its id; of beams all have one slot."""
    engine = Engine(
        model=model,
        mesh=mesh or one_device(),
        slots=slots * sampling_params.beams,
        context=model.config.context,
        check=check,
        compaction_parity={} if parity is None else parity,
    )
    return {
        completion.id: completion
        for completions in engine.generate(
            prompts,
            sampling_params=sampling_params,
            stop_criteria=StopCriteria(eos=eos, stops=stops, decode=decode),
            key=jax.random.key(7),
            done=done,
            metrics=metrics,
        )
        for completion in completions
    }


def assert_same(completions, others):
    """Tokens are equal; sums in fp32 may be taken in another order."""
    assert by_id(completions) == by_id(others)
    for id, completion in completions.items():
        assert completion.log_probability == pytest.approx(
            others[id].log_probability, abs=1e-4
        )


def by_id(completions):
    return {id: (c.tokens, c.finish_reason) for id, c in completions.items()}


def assert_scored(model, prompts, completions):
    """Checks the log-probabilities against those of scoring the whole texts."""
    items = [
        LoglikelihoodRequest(
            prompt=prompt.token_ids, continuations=(completions[prompt.id].tokens,)
        )
        for prompt in prompts
    ]
    sums = loglikelihood(model, items, slots=8, mesh=one_device(), check=lambda: None)
    for prompt, (total,) in zip(prompts, sums, strict=True):
        assert completions[prompt.id].log_probability == pytest.approx(total, abs=1e-4)
