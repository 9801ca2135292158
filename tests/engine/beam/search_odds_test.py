"""Beam-sample against its odds: a small vocabulary lets us go through them all."""

import collections
import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import torch
from completions import one_device
from tiny_llama import TINY, torch_llama

from isara_jax.engine.beam.search import search
from isara_jax.engine.beam.state import empty_beams, search_results
from isara_jax.engine.decode.batch import insert
from isara_jax.engine.kv_cache.layer_blocks import make_layer_blocks
from isara_jax.engine.prefill.chunking import plan_spans
from isara_jax.engine.prefill.prefix_cache import empty_prefix_cache
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.models.llama.model import Llama

SMALL = dataclasses.replace(
    TINY,
    vocab_size=6,
    width=16,
    layers=1,
    heads=2,
    kv_heads=1,
    feed_forward=16,
    tied_head=False,
)
EOS = 1
PAIRS = SamplingParams(
    max_new_tokens=2, temperature=1.5, top_k=4, beams=2, length_penalty=0.7
)
START = (1, 4, 3)


@functools.cache
def small_llama():
    model = Llama(SMALL, key=jax.random.key(3))
    louder = jax.random.normal(jax.random.key(4), (SMALL.vocab_size, SMALL.width)) / 6
    model.head = model.head.replace(louder)
    return model


def continuations(beams, log_probabilities):
    """Lists (score, text) of the ways on, and the weight of each."""
    ways = []
    for total, text in beams:
        warped = log_probabilities(text) / PAIRS.temperature
        best = np.argsort(-warped)[: PAIRS.top_k]
        ways += [(total + warped[token], (*text, int(token))) for token in best]
    weights = np.exp([total for total, _ in ways])
    return ways, weights / weights.sum()


def ordered_draws(weights, count):
    """Yields all draws without replacement, in order, and how likely each is."""
    for draw in itertools.permutations(range(len(weights)), count):
        left, chance = 1.0, 1.0
        for way in draw:
            chance *= weights[way] / left
            left -= weights[way]
        yield draw, chance


def chances_of_texts(log_probabilities):
    """Goes through every outcome of beam-sample; returns each text's probability."""
    width = PAIRS.beams
    states = {(((0.0, ()),), ()): 1.0}
    for length in range(1, PAIRS.max_new_tokens + 1):
        later = collections.Counter()
        for (beams, finished), before in states.items():
            ways, weights = continuations(beams, log_probabilities)
            for draw, chance in ordered_draws(weights, 2 * width):
                drawn = [ways[place] for place in draw]
                ended = [
                    text[-1] == EOS or length == PAIRS.max_new_tokens
                    for _, text in drawn
                ]
                done = [
                    (total / length**PAIRS.length_penalty, text)
                    for (total, text), end in list(zip(drawn, ended, strict=True))[
                        :width
                    ]
                    if end
                ]
                going = [way for way, end in zip(drawn, ended, strict=True) if not end]
                state = (
                    tuple(sorted(going, reverse=True)[:width]),
                    tuple(sorted((*finished, *done), reverse=True)[:width]),
                )
                later[state] += before * chance
        states = later
    texts = collections.Counter()
    for (_, finished), chance in states.items():
        texts[finished[0][1]] += chance
    return texts


def drawn_texts(count, *, slots=2000):
    """Yields the texts of so many samples of the prompt, which is in all slots."""
    mesh, key = one_device(), jax.random.key(7)
    blocks = make_layer_blocks(small_llama(), mesh=mesh)
    (spans,) = plan_spans([START])
    cache = empty_prefix_cache(blocks, longest=len(START), mesh=mesh)
    _, prefix = cache.prefill(START, spans)
    limit = PAIRS.max_new_tokens
    for first in range(0, count, slots):
        empty = empty_beams(
            blocks,
            rows=1,
            max_len=len(START),
            max_shared_len=0,
            beams=PAIRS.beams,
            new_tokens=limit,
            mesh=mesh,
        )
        one = insert(empty, prefix, 0, limit=limit, key=key, mesh=mesh)
        sample_indices = jnp.arange(first, first + slots)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(sample_indices)
        state = search(
            blocks,
            dataclasses.replace(one.take(jnp.zeros(slots, int)), keys=keys),
            PAIRS.traced,
            eos=jnp.array([EOS]),
            static=PAIRS.static,
            steps=jnp.int32(limit),
            mesh=mesh,
        )
        for _, tokens, _ in search_results(state, np.arange(slots)):
            yield tuple(tokens.tolist())


def test_beam_sample_has_its_distribution():
    twin = torch_llama(small_llama()).eval()

    @functools.cache
    def log_probabilities(text):
        with torch.no_grad():
            logits = twin(torch.tensor([[*START, *text]])).logits[0, -1]
        return torch.log_softmax(logits.double(), -1).numpy()

    chances = chances_of_texts(log_probabilities)
    assert math.isclose(sum(chances.values()), 1.0)
    draws = 20_000
    counts = collections.Counter(drawn_texts(draws))
    assert set(counts) <= set(chances)
    assert {len(text) for text in counts} == {1, 2}
    often = [text for text in chances if draws * chances[text] >= 5]
    assert len(often) > 6
    rest = 1 - sum(chances[text] for text in often)
    expected = [draws * chances[text] for text in often] + [draws * rest]
    found = [counts[text] for text in often]
    found.append(draws - sum(found))
    if expected[-1] < 5:
        expected[-2:], found[-2:] = [sum(expected[-2:])], [sum(found[-2:])]
    assert scipy.stats.chisquare(found, expected).pvalue > 0.001
