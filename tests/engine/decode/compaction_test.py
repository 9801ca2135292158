"""Batch compaction: the last requests in fewer slots, where that changes no bit."""

import dataclasses

import pytest
from completions import SAMPLED, complete, random_prompts
from tiny_llama import tiny_llama

from isara_jax.engine.decode import compaction
from isara_jax.engine.metrics.throughput import EngineMetrics
from isara_jax.runtime.mesh import make_mesh

PROMPTS = [
    dataclasses.replace(
        prompt, max_new_tokens=20 if number % 9 == 0 else number % 7 + 1
    )
    for number, prompt in enumerate(random_prompts(*range(5, 55)))
]


def written(metrics, parity=None):
    return complete(
        tiny_llama(),
        PROMPTS,
        sampling_params=SAMPLED,
        slots=32,
        metrics=metrics,
        parity=parity,
    )


@pytest.fixture(scope="module")
def in_all_rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "MIN_COMPACTED_ROWS", 100)
        metrics = EngineMetrics()
        return written(metrics), metrics


@pytest.mark.parametrize("alike", [True, False])
def test_the_last_texts_are_those_of_all_rows(monkeypatch, in_all_rows, alike):
    wanted, wide = in_all_rows
    answered, parity = [], {}

    def has_bits_of(narrow, wide, kept):
        answered.append((narrow.done.shape, wide.done.shape, kept.shape))
        return alike

    monkeypatch.setattr(compaction, "_has_bits_of", has_bits_of)
    metrics = EngineMetrics()
    for _ in range(2):
        found = written(metrics, parity)
        for id, completion in wanted.items():
            assert found[id].tokens == completion.tokens
            assert found[id].log_probability == pytest.approx(
                completion.log_probability, abs=1e-4
            )
    assert answered == [((8,), (32,), (8,))], (
        "asked once by engines that share the answers"
    )
    assert list(parity.values()) == [alike]
    assert (metrics.slot_steps < 2 * wide.slot_steps) == alike
    if not alike:
        assert found == wanted


def test_rows_that_are_not_alike_to_the_bit_are_found(monkeypatch):
    answers, has_bits_of = [], compaction._has_bits_of

    def noted(narrow, wide, kept):
        nudged = narrow.logits.at[3, 5].multiply(1 + 1e-6)
        other = dataclasses.replace(narrow, logits=nudged)
        answers.append(bool(has_bits_of(other, wide, kept)))
        # The rows of the wide state against themselves.
        answers.append(bool(has_bits_of(compact(wide, kept), wide, kept)))
        return answers[-1]

    def compact(state, kept):
        return compaction.compact(state, kept, mesh=make_mesh(data=1, model=1))

    monkeypatch.setattr(compaction, "_has_bits_of", noted)
    written(EngineMetrics())
    assert answers == [False, True]
