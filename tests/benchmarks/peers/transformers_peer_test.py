"""transformers as a peer: clocked within one call, and held to the same rules."""

import dataclasses

import pytest
import torch
import transformers
from tiny_llama import TINY, tiny_llama, torch_llama

from benchmarks.generation.workloads import Rules, Workload
from benchmarks.peers.transformers_peer import (
    Clock,
    TransformersPeer,
    generate_arguments,
    random_weights,
)
from isara_jax.engine.sampling.completion import StopCriteria
from isara_jax.engine.sampling.params import SamplingParams

SHARED = [5, 6, 7, 8, 9]


@pytest.fixture(scope="module")
def peer():
    return TransformersPeer(torch_llama(tiny_llama()))


def workload(**changes):
    prompts = [[*SHARED, *range(20, 20 + count)] for count in (3, 3, 3, 3, 3)]
    values = {
        "prompts": prompts,
        "new_tokens": [2, 6, 3, 4, 2],
        "rows": 2,
        "measure": "seconds",
    }
    return Workload(**values | changes)


def rules(**changes):
    stop_criteria = StopCriteria(eos=(2, 3), stops=(), decode=str)
    sampling_params = SamplingParams(max_new_tokens=9, **changes)
    return Rules(
        sampling_params=sampling_params,
        stop_criteria=stop_criteria,
        key=None,
        prompts=(),
    )


def test_a_batch_is_written_to_the_longest_of_its_rows(peer):
    timing = peer.run(workload())
    # Two rows to 6, two to 4, one to 2; the first of each comes out of the prompts.
    assert timing.decoded_tokens == 2 * 5 + 2 * 3 + 1
    assert timing.prefill_seconds > 0 and timing.decode_seconds > 0
    assert timing.prefill_seconds + timing.decode_seconds <= timing.seconds


def test_a_clock_has_a_time_for_the_prompts_and_each_token(peer):
    clock = Clock()
    arguments = generate_arguments(workload(), new=5)
    tokens = torch.tensor([SHARED])
    peer.model.generate(
        tokens, attention_mask=torch.ones_like(tokens), streamer=clock, **arguments
    )
    assert len(clock.times) == 6
    clock.times = [1.0, 3.0, 4.0, 7.0]
    assert (clock.prefill_seconds, clock.decode_seconds) == (2.0, 4.0)


def test_the_prefix_made_by_hand_gives_the_same_text(peer, monkeypatch):
    written = []
    plain = peer.model.generate

    def noted(*arguments, **named):
        written.append(plain(*arguments, **named))
        return written[-1]

    monkeypatch.setattr(peer.model, "generate", noted)
    sharing = workload(shared=len(SHARED), rows=5, new_tokens=[4] * 5)
    runners = peer.runners(sharing)
    assert list(runners) == ["transformers", "transformers with the prefix by hand"]
    for way in runners.values():
        assert way(sharing).seconds > 0
    assert written[0].shape == (5, 8 + 4) and torch.equal(*written)


def test_without_a_shared_beginning_there_is_one_way(peer):
    assert list(peer.runners(workload())) == ["transformers"]


def test_rules_are_put_into_words_that_transformers_knows():
    given = workload(
        rules=rules(
            temperature=0.7,
            top_k=0,
            top_p=0.9,
            min_p=0.05,
            repetition_penalty=1.2,
            no_repeat_ngram=3,
            length_decay_start=4,
            length_decay_factor=1.5,
        )
    )
    arguments = generate_arguments(given, new=7)
    assert arguments == {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 0,
        "top_p": 0.9,
        "min_p": 0.05,
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
        "exponential_decay_length_penalty": (4, 1.5),
        "eos_token_id": [2, 3],
        "min_new_tokens": 7,
        "max_new_tokens": 7,
        "pad_token_id": 0,
    }
    known = vars(transformers.GenerationConfig())
    assert arguments.keys() <= known.keys()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ends_of_text_are_forbidden(peer, temperature):
    every = rules(temperature=temperature, top_k=0)
    # All tokens but one end a text.
    all_but_one = StopCriteria(eos=tuple(range(1, 97)), stops=(), decode=str)
    given = workload(rules=dataclasses.replace(every, stop_criteria=all_but_one))
    assert peer.run(given).decoded_tokens == 17


def test_greedy_rules_are_not_sampled():
    given = workload(rules=rules(temperature=0.0))
    assert generate_arguments(given, new=3)["do_sample"] is False


def test_beams_are_refused():
    with pytest.raises(ValueError, match="beams=3: drafting is compared without"):
        generate_arguments(workload(rules=rules(beams=3)), new=3)


def test_random_weights_have_the_shape():
    untied = dataclasses.replace(TINY, tied_head=False)
    model = random_weights(untied, dtype="bfloat16").model
    ours = tiny_llama()
    count = sum(p.numel() for p in model.parameters())
    assert model.dtype == torch.bfloat16 and model.config.num_key_value_heads == 2
    assert count == sum(a.numel() for a in torch_llama(ours).parameters()) + 97 * 32
