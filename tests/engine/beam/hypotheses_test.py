"""The book-keeping of beams where whole searches seldom come by; see beam_test."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isara_jax.engine.beam.hypotheses import extensions, no_hypotheses
from isara_jax.engine.sampling.logits_processors import TokenBuffer
from isara_jax.engine.sampling.params import SamplingParams

BEAMS, VOCABULARY = 2, 9
NOTHING = jnp.zeros((BEAMS, 1), jnp.int32)
TEXTS = TokenBuffer(
    token_ids=NOTHING,
    mask=NOTHING,
    lengths=NOTHING[:, 0],
    generated=NOTHING[:, 0],
    seen=jnp.zeros((BEAMS, VOCABULARY), bool),
)


@pytest.mark.parametrize("eos", [(), (3,), (3, 5), (3, 5, 8)], ids=len)
@pytest.mark.parametrize(
    "rules",
    [
        {"temperature": 0.0},
        {"top_k": 1, "temperature": 0.1},
        {"top_k": 0, "top_p": 0.1, "temperature": 0.1},
    ],
    ids=str,
)
def test_as_many_as_there_are_beams_do_not_end_even_if_ends_are_best(rules, eos):
    sampling_params = SamplingParams(max_new_tokens=4, beams=BEAMS, **rules)
    running = no_hypotheses(rows=1, beams=BEAMS, new_tokens=4)
    running = dataclasses.replace(running, scores=jnp.zeros((1, BEAMS)))
    logits = jnp.arange(9.0).at[jnp.asarray(eos, jnp.int32)].add(50.0)
    own = jax.nn.log_softmax(jnp.broadcast_to(logits, (1, BEAMS, VOCABULARY)))
    found = extensions(
        own,
        sampling_params.static,
        traced=sampling_params.traced,
        running=running,
        texts=TEXTS,
        eos=jnp.asarray(eos, jnp.int32),
        keys=jax.random.split(jax.random.key(0), 1),
    )
    open_ones = ~np.isin(found.tokens, eos) & np.isfinite(found.scores)
    assert open_ones.sum() >= BEAMS
    pairs = zip(found.beams[0].tolist(), found.tokens[0].tolist(), strict=True)
    assert len(set(pairs)) == found.tokens.shape[1]
