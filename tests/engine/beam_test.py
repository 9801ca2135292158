"""Beam search against transformers token for token, beam-sample against its odds."""

import collections
import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
from completions import complete, letters, one_device, place, random_prompts
from counting_llama import counting_llama
from tiny_llama import TINY, tiny_llama, torch_llama
from tiny_opt import load_opt, write_opt

from isara_jax.engine import beam
from isara_jax.engine.batches import Prompt, plan
from isara_jax.engine.beam import search, start
from isara_jax.engine.decoding import Decoding
from isara_jax.engine.endings import Ending
from isara_jax.engine.score import Scored, score
from isara_jax.models.llama import Llama
from isara_jax.runtime.mesh import make_mesh, place_batch

NEW = 12
SEARCH = Decoding(max_new_tokens=NEW, temperature=0.0, beams=4)
ALL_RULES = {
    "repetition_penalty": 1.3,
    "no_repeat_ngram": 2,
    "min_new_tokens": 3,
    "length_decay_start": 6,
    "length_decay_factor": 1.02,
}
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


def their_beams(twin, prompts, *, decoding, eos):
    """Runs prompts of one length at a time: padding would count as text."""
    found = {}
    ordered = sorted(prompts, key=lambda prompt: len(prompt.tokens))
    for length, grouped in itertools.groupby(ordered, lambda p: len(p.tokens)):
        group = list(grouped)
        tokens = torch.tensor([prompt.tokens for prompt in group])
        decay = (decoding.length_decay_start, decoding.length_decay_factor)
        texts = twin.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            num_beams=decoding.beams,
            length_penalty=decoding.length_penalty,
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens or None,
            exponential_decay_length_penalty=decay if decay[1] != 1 else None,
            repetition_penalty=decoding.repetition_penalty,
            no_repeat_ngram_size=decoding.no_repeat_ngram,
            eos_token_id=list(eos),
            pad_token_id=eos[0],
        )
        for prompt, text in zip(group, texts[:, length:].tolist(), strict=True):
            ends = [at for at, token in enumerate(text) if token in eos]
            found[prompt.id] = tuple(text[: ends[0] + 1] if ends else text)
    return found


def ending_somewhere(model, *, decoding, count):
    """Continues the prompts with ends at which some of the texts, not all, do end."""
    run = functools.partial(complete, model, TWENTY, decoding=decoding, slots=20)
    texts = [completion.tokens for completion in run(eos=(96,) * count).values()]
    held = collections.Counter(token for text in texts for token in set(text[3:]))
    for token, _ in held.most_common():
        eos = (token, 95)[:count]
        completions = run(eos=eos)
        if {c.finish for c in completions.values()} == {"eos", "length"}:
            return completions, eos
    raise AssertionError("no token ends some of the texts")


# Texts of this model lose a like share of probability with every token, so that with a
# length penalty of 2 the longest win, unless their ends are made likelier.
LONG = {"length_penalty": 2.0, "length_decay_start": 3, "length_decay_factor": 1.04}
CASES = [
    ("llama", {"length_penalty": 0.5}, 1),
    ("llama", {}, 1),
    ("llama", LONG, 1),
    ("llama", {"length_penalty": 2.0, **ALL_RULES}, 2),
    ("opt", {"length_penalty": 0.5}, 1),
    ("opt", {}, 1),
    ("opt", LONG, 1),
    ("opt", {"length_penalty": 2.0, **ALL_RULES}, 2),
    ("mistral", {}, 1),
]


@pytest.mark.parametrize(("family", "rules", "ends"), CASES, ids=str)
def test_beam_search_is_that_of_transformers(pairs, family, rules, ends):
    twin, model = pairs(family)
    decoding = dataclasses.replace(SEARCH, **rules)
    ours, eos = ending_somewhere(model, decoding=decoding, count=ends)
    theirs = their_beams(twin, TWENTY, decoding=decoding, eos=eos)
    assert {id: completion.tokens for id, completion in ours.items()} == theirs


def test_the_search_finds_what_the_greedy_way_does_not():
    model, greedy = tiny_llama(), dataclasses.replace(SEARCH, beams=1)
    ours = complete(model, TWENTY, decoding=SEARCH, slots=20)
    others = complete(model, TWENTY, decoding=greedy, slots=20)
    better = [ours[id].log_probability - others[id].log_probability for id in ours]
    assert np.mean(np.array(better) > 0.01) > 0.7


# Beam-sample on a vocabulary that is small enough to go through all of its outcomes.
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
PAIRS = Decoding(
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


def test_beam_sample_has_its_distribution():
    twin = torch_small()

    @functools.cache
    def log_probabilities(text):
        with torch.no_grad():
            logits = twin(torch.tensor([[*START, *text]])).logits[0, -1]
        return torch.log_softmax(logits.double(), -1).numpy()

    chances = chances_of_texts(log_probabilities)
    assert math.isclose(sum(chances.values()), 1.0)
    draws = 20_000
    prompts = [Prompt(id=str(n), number=n, tokens=START) for n in range(draws)]
    completions = complete(
        small_llama(), prompts, decoding=PAIRS, eos=(EOS,), slots=2000
    )
    counts = collections.Counter(c.tokens for c in completions.values())
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


def torch_small():
    return torch_llama(small_llama()).eval()


SAMPLED = Decoding(
    max_new_tokens=12,
    temperature=0.9,
    top_k=30,
    top_p=0.9,
    beams=3,
    length_penalty=1.5,
    **ALL_RULES,
)
PROMPTS = random_prompts(1, 5, 70, 12, 30, 3)
sampled = functools.partial(complete, decoding=SAMPLED, eos=(8, 40))


@pytest.fixture(scope="module")
def alone():
    """Every prompt's completion in a batch of its own."""
    return sampled(tiny_llama(), PROMPTS, slots=1)


def assert_same(completions, others):
    assert {id: c.tokens for id, c in completions.items()} == {
        id: c.tokens for id, c in others.items()
    }
    for id, completion in completions.items():
        assert completion.log_probability == pytest.approx(
            others[id].log_probability, abs=1e-4
        )


def test_a_sample_does_not_depend_on_its_batch(alone):
    assert {completion.finish for completion in alone.values()} == {"eos", "length"}
    assert len({completion.tokens for completion in alone.values()}) == len(PROMPTS)
    assert_same(sampled(tiny_llama(), PROMPTS[::-1]), alone)


def test_eight_devices_are_one_and_compile_once(alone, compilations):
    mesh = make_mesh(data=4, model=2)
    split = place(tiny_llama(), mesh)
    assert_same(sampled(split, PROMPTS, mesh=mesh), alone)
    assert compilations.count("jit(start)") == 1
    assert compilations.count("jit(search)") == 1
    compilations.clear()
    changed = dataclasses.replace(SAMPLED, length_penalty=0.3, temperature=0.5)
    others = sampled(split, PROMPTS, mesh=mesh, decoding=changed)
    assert all(others[id].tokens != alone[id].tokens for id in alone)
    assert compilations == []


def test_number_and_key_decide_the_sample(alone):
    renumbered = [dataclasses.replace(p, number=p.number + 100) for p in PROMPTS]
    others = sampled(tiny_llama(), renumbered)
    assert all(others[id].tokens != alone[id].tokens for id in alone)


def test_stretches_change_nothing(monkeypatch, alone):
    monkeypatch.setattr(beam, "STEPS_BETWEEN_CHECKS", 5)
    assert_same(sampled(tiny_llama(), PROMPTS), alone)


def test_the_log_probability_is_that_of_score(alone):
    items = [
        Scored(prompt=prompt.tokens, continuations=(alone[prompt.id].tokens,))
        for prompt in PROMPTS
    ]
    sums = score(tiny_llama(), items, slots=8, mesh=one_device(), check=lambda: None)
    for prompt, (total,) in zip(PROMPTS, sums, strict=True):
        assert alone[prompt.id].log_probability == pytest.approx(total, abs=1e-4)


def count_up(*, stops=(), eos=(90,), check=lambda: None):
    """Continues 0 by 1, 2, 3 and so on up to 20, a letter each."""
    (completion,) = complete(
        counting_llama(),
        [Prompt(id="", number=0, tokens=(0,))],
        decoding=dataclasses.replace(SEARCH, max_new_tokens=20),
        stops=stops,
        eos=eos,
        check=check,
    ).values()
    return completion


def test_a_stop_string_cuts_the_chosen_text():
    cut = count_up(stops=(letters([4, 5]),))
    assert (cut.text, cut.tokens, cut.finish) == (
        *(letters([1, 2, 3]), (1, 2, 3, 4, 5), "stop"),
    )
    assert cut.log_probability == pytest.approx(5 * math.log(0.9), rel=1e-4)


class Stopped(Exception):
    pass


def test_check_is_called_before_every_stretch_and_may_raise():
    calls = []
    assert count_up(check=lambda: calls.append(None)).tokens == tuple(range(1, 21))
    assert len(calls) == 3

    def check():
        if len(calls) == 5:
            raise Stopped
        calls.append(None)

    with pytest.raises(Stopped):
        count_up(check=check)


def test_the_search_ends_once_nothing_better_can_come():
    calls = []
    ended = count_up(eos=(4,), check=lambda: calls.append(None))
    assert (ended.tokens, ended.finish) == ((1, 2, 3, 4), "eos")
    assert len(calls) < 3


def test_a_batch_planned_for_fewer_tokens_is_refused():
    (batch,) = plan(
        PROMPTS[:1], slots=1, row_multiple=1, max_new_tokens=1, context=TINY.context
    )
    with pytest.raises(
        ValueError, match=r"^max_new_tokens=90: the batch was planned with room for "
    ):
        beam.beam_batch(
            tiny_llama(),
            batch,
            decoding=dataclasses.replace(SEARCH, max_new_tokens=90),
            ending=Ending(eos=(), stops=(), decode=letters),
            key=jax.random.key(7),
            mesh=one_device(),
            check=lambda: None,
        )


@pytest.mark.usefixtures("types_unchecked")
def test_the_cache_is_updated_in_place():
    mesh = make_mesh(data=4, model=2)
    config = dataclasses.replace(TINY, layers=8)
    deep = jax.jit(lambda key: Llama(config, key=key))(jax.random.key(0))
    prompts = (place_batch(np.ones((8, 32), np.int32), mesh),) * 2
    split = place(deep, mesh)
    state = start(split, *prompts, beams=3, new_tokens=500, mesh=mesh)
    loop = search.lower(
        split,
        state,
        SAMPLED.strengths,
        prompts=prompts,
        keys=jax.random.split(jax.random.key(0), 8),
        eos=jnp.zeros(1, jnp.int32),
        last=jnp.int32(0),
        form=SAMPLED.form,
    )
    memory = loop.compile().memory_analysis()
    a_device = (state.cache.keys.nbytes + state.cache.values.nbytes) // mesh.size
    assert memory.alias_size_in_bytes >= a_device
    assert memory.temp_size_in_bytes < a_device
