"""What a slot of beams holds, and what is taken from it when its search has ended."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import tiny_llama

from isara_jax.engine.beam import state as module
from isara_jax.engine.beam.hypotheses import NO_SCORE
from isara_jax.engine.beam.state import beam_backend, empty_beams, search_results
from isara_jax.engine.decode.batch import insert
from isara_jax.engine.kv_cache.layer_blocks import make_layer_blocks
from isara_jax.engine.prefill.chunking import plan_spans
from isara_jax.engine.prefill.prefix_cache import empty_prefix_cache
from isara_jax.models.attention.dispatch import AttentionBackend
from isara_jax.runtime.mesh import make_mesh

MESH = make_mesh(data=1, model=1)
PROMPT = (5, 6, 7, 5)
BEAMS = 3


@pytest.fixture(scope="module")
def filled():
    blocks = make_layer_blocks(tiny_llama())
    cache = empty_prefix_cache(blocks, longest=8, mesh=MESH)
    (spans,) = plan_spans([PROMPT])
    _, prefix = cache.prefill(PROMPT, spans)
    state = empty_beams(
        blocks,
        rows=2,
        beams=BEAMS,
        max_len=16,
        max_shared_len=0,
        new_tokens=4,
        mesh=MESH,
    )
    return insert(state, prefix, 1, limit=4, key=jax.random.key(0), mesh=MESH)


def test_of_equal_beams_one_is_open(filled):
    assert filled.running.scores[1].tolist() == [0, NO_SCORE, NO_SCORE]
    assert not np.any(filled.finished.lengths)
    np.testing.assert_array_equal(filled.logits[1, 0], filled.logits[1, 2])


def test_every_beam_s_text_begins_with_the_prompt(filled):
    texts = filled.texts()
    rows = texts.token_ids.reshape(2, BEAMS, -1)
    assert rows[1, :, : len(PROMPT)].tolist() == [list(PROMPT)] * BEAMS
    assert texts.lengths.reshape(2, BEAMS)[1].tolist() == [len(PROMPT)] * BEAMS


def test_the_best_finished_text_is_the_result(filled):
    tokens = (
        jnp.zeros_like(filled.finished.tokens).at[1, 0, :2].set(jnp.asarray([8, 9]))
    )
    finished = dataclasses.replace(
        filled.finished,
        tokens=tokens,
        lengths=filled.finished.lengths.at[1, 0].set(2),
        log_probabilities=filled.finished.log_probabilities.at[1, 0].set(-0.5),
    )
    state = dataclasses.replace(filled, finished=finished)
    ((slot, found, log_probabilities),) = search_results(state, np.asarray([1]))
    assert (slot, found.tolist()) == (1, [8, 9])
    assert log_probabilities.tolist() == [-0.5, -0.5]
    assert list(search_results(state, np.asarray([], int))) == []


@pytest.mark.parametrize(("kind", "used"), [("tpu", "xla"), ("nvidia", "nvidia")])
def test_beams_avoid_the_kernel_that_takes_no_mask(monkeypatch, kind, used):
    monkeypatch.setattr(
        module, "attention_backend", lambda mesh: AttentionBackend(kind, mesh)
    )
    backend = beam_backend(MESH)
    assert (backend.kind, backend.mesh) == (used, MESH)
