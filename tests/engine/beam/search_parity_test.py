"""Beam search against transformers, token for token."""

import collections
import dataclasses
import functools

import numpy as np
import pytest
from completions import EVERY_RULE, complete, random_prompts
from tiny_llama import TINY, tiny_llama, torch_llama
from tiny_opt import load_opt, write_opt
from twin_texts import their_texts

from isara_jax.engine.sampling.params import SamplingParams

SEARCH = SamplingParams(max_new_tokens=12, temperature=0.0, beams=4)
TWENTY = random_prompts(*[5, 70] * 10)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Returns transformers' and our model of a family, of the same random weights."""

    @functools.cache
    def pair(family):
        if family == "opt":
            folder = tmp_path_factory.mktemp("opt")
            twin = write_opt(folder)
            return twin, load_opt(folder)
        if family == "mistral":
            return torch_mistral(), tiny_mistral()
        return torch_llama(tiny_llama()).eval(), tiny_llama()

    return pair


def tiny_mistral():
    """The LLaMA, in a text of which a token sees the last 9 only."""
    model = tiny_llama()
    model.config = dataclasses.replace(TINY, window=9)
    return model


def torch_mistral():
    import transformers

    llama = torch_llama(tiny_llama())
    config = transformers.MistralConfig(
        **llama.config.to_dict() | {"sliding_window": 9, "model_type": "mistral"}
    )
    config._attn_implementation = "eager"
    twin = transformers.MistralForCausalLM(config)
    twin.load_state_dict(llama.state_dict())
    return twin.eval()


def ending_somewhere(model, *, sampling_params, count):
    """Continues the prompts with ends at which some of the texts, not all, do end."""
    run = functools.partial(
        complete, model, TWENTY, sampling_params=sampling_params, slots=20
    )
    texts = [completion.tokens for completion in run(eos=(96,) * count).values()]
    held = collections.Counter(token for text in texts for token in set(text[3:]))
    for token, _ in held.most_common():
        eos = (token, 95)[:count]
        completions = run(eos=eos)
        if {c.finish_reason for c in completions.values()} == {"eos", "length"}:
            return completions, eos
    raise AssertionError("no token ends some of the texts")


# Texts of this model lose a like share of probability with every token, so that with a
# length penalty of 2 the longest win, unless their ends are made likelier.
LONG = {"length_penalty": 2.0, "length_decay_start": 3, "length_decay_factor": 1.04}
CASES = [
    ("llama", {"length_penalty": 0.5}, 1),
    ("llama", {}, 1),
    ("llama", LONG, 1),
    ("llama", {"length_penalty": 2.0, **EVERY_RULE}, 2),
    ("opt", {"length_penalty": 0.5}, 1),
    ("opt", {}, 1),
    ("opt", LONG, 1),
    ("opt", {"length_penalty": 2.0, **EVERY_RULE}, 2),
    ("mistral", {}, 1),
]


@pytest.mark.parametrize(("family", "rules", "ends"), CASES, ids=str)
def test_beam_search_is_that_of_transformers(pairs, family, rules, ends):
    twin, model = pairs(family)
    sampling_params = dataclasses.replace(SEARCH, **rules)
    ours, eos = ending_somewhere(model, sampling_params=sampling_params, count=ends)
    theirs = their_texts(twin, TWENTY, sampling_params=sampling_params, eos=eos)
    assert {id: completion.tokens for id, completion in ours.items()} == theirs


def test_the_search_finds_what_the_greedy_way_does_not():
    model, greedy = tiny_llama(), dataclasses.replace(SEARCH, beams=1)
    ours = complete(model, TWENTY, sampling_params=SEARCH, slots=20)
    others = complete(model, TWENTY, sampling_params=greedy, slots=20)
    better = [ours[id].log_probability - others[id].log_probability for id in ours]
    assert np.mean(np.array(better) > 0.01) > 0.7
