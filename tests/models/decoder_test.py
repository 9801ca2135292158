"""The pass over whole rows: padding, segments, remat, scores."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import TINY, tiny_llama
from whole_rows import drawn_tokens, states

from isara_jax.models.checkpoints.load import abstract_model
from isara_jax.models.decoder import hidden_states, left_padded_positions, pooled_scores
from isara_jax.models.decoder_cached import empty_cache, extend, prefill
from isara_jax.models.layers.score_head import ScoreHead
from isara_jax.models.llama.model import Llama


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


def test_segments_keep_packed_rows_apart(model):
    first, second = drawn_tokens(1, 9), drawn_tokens(2, 6)[1:]
    packed = states(
        model,
        jnp.concatenate([first, second], axis=1),
        segments=jnp.array([[1] * 9 + [2] * 6]),
        positions=jnp.array([[*range(9), *range(6)]]),
    )
    np.testing.assert_allclose(packed[:, :9], states(model, first), atol=2e-5)
    np.testing.assert_allclose(packed[:, 9:], states(model, second), atol=2e-5)


def test_no_gradient_comes_from_a_later_token(model):
    tokens = jnp.arange(12)[None]  # every token has its own row of the table

    @jax.jit
    @jax.grad
    def gradient(model, at):
        return jnp.sum(states(model, tokens)[0, at] ** 3)

    for at in (0, 5, 11):
        of_token = jnp.abs(gradient(model, at).embedding[...]).sum(axis=1)
        assert jnp.all(of_token[: at + 1] > 0)
        assert jnp.all(of_token[at + 1 :] == 0)


def test_remat_changes_no_gradient(model):
    tokens = drawn_tokens(2, 9)

    @functools.partial(jax.jit, static_argnames="remat")
    def gradient(model, remat):
        def loss(model):
            return jnp.sum(states(model, tokens, remat=remat) ** 2)

        return jax.tree.leaves(jax.grad(loss)(model))

    whole = gradient(model, "none")
    for remat in ("full", "dots"):
        for got, expected in zip(gradient(model, remat), whole, strict=True):
            assert jnp.linalg.norm(got - expected) <= 1e-5 * jnp.linalg.norm(expected)


@pytest.mark.parametrize("remat", ["none", "full", "dots"])
def test_remat_keeps_what_it_says(model, remat):
    def loss(model):
        return jnp.sum(
            hidden_states(
                model,
                drawn_tokens(2, 9),
                segments=jnp.ones((2, 9), int),
                positions=left_padded_positions(jnp.ones((2, 9), int)),
                remat=remat,
            )
        )

    text = str(jax.make_jaxpr(jax.grad(loss))(model))
    assert ("remat" in text) == (remat != "none")


def test_scores_are_those_of_the_last_token_whatever_side_the_padding_is():
    model = Llama(
        dataclasses.replace(TINY, score=ScoreHead(labels=3, bias=True, name="score")),
        key=jax.random.key(0),
    )
    tokens = drawn_tokens(2, 9)
    filling = jnp.zeros((2, 4), int)
    ones = jnp.ones_like(tokens)
    expected = pooled_scores(model, tokens, segments=ones)
    assert expected.shape == (2, 3)
    for order in (1, -1):
        padded = jnp.concatenate([tokens, filling][::order], axis=1)
        segments = jnp.concatenate([ones, filling][::order], axis=1)
        got = pooled_scores(model, padded, segments=segments)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_bf16_runs_and_stays_near(model):
    tokens = drawn_tokens(2, 30)
    wide = states(model, tokens)
    narrow = states(tiny_llama(dtype=jnp.bfloat16), tokens)
    assert narrow.dtype == jnp.bfloat16
    difference = jnp.linalg.norm(narrow.astype(jnp.float32) - wide)
    assert 0 < difference < 0.02 * jnp.linalg.norm(wide)


def test_positions_count_from_a_row_s_first_token():
    segments = jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(
        left_padded_positions(segments),
        [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]],
    )


@pytest.mark.parametrize("name", ["whole", "prefill", "extend"])
def test_the_program_does_not_grow_with_depth(name):
    tokens = jnp.ones((1, 4), int)

    def products(layers):
        model = abstract_model(
            dataclasses.replace(TINY, layers=layers), dtype="float32"
        )
        run = {
            "whole": lambda model: states(model, tokens),
            "prefill": lambda model: prefill(
                model, tokens, segments=tokens, capacity=8
            ),
            "extend": lambda model: extend(
                model, tokens, empty_cache(model, rows=1, capacity=8)
            ),
        }[name]
        return str(jax.make_jaxpr(run)(model)).count("dot_general")

    assert products(2) == products(7) > 0
