"""The three passes against each other; llama_test holds them against torch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import TINY, tiny_llama

from isara_jax.models.checkpoints.load import abstract_model
from isara_jax.models.decoder import hidden_states, left_padded_positions, pooled_scores
from isara_jax.models.decoder_cached import branch, empty_cache, extend, prefill
from isara_jax.models.layers.score_head import ScoreHead
from isara_jax.models.llama.model import Llama

causal_attention = jax.jit(hidden_states, static_argnames="remat")
run_prompt = jax.jit(prefill, static_argnames="capacity")
run_more = jax.jit(extend)


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


def drawn_tokens(rows, length):
    return jnp.asarray(np.random.default_rng(0).integers(0, 97, (rows, length)))


def states(model, tokens, *, segments=None, positions=None, remat="none"):
    segments = jnp.ones_like(tokens) if segments is None else segments
    positions = left_padded_positions(segments) if positions is None else positions
    return causal_attention(
        model, tokens, segments=segments, positions=positions, remat=remat
    )


@pytest.mark.parametrize("steps", [[1] * 8, [3, 5], [8], [1, 6, 1]])
def test_cached_passes_are_the_whole_pass(model, steps):
    tokens = drawn_tokens(3, 20)
    expected = states(model, tokens)
    prompt = tokens[:, :12]
    last, cache = run_prompt(model, prompt, segments=jnp.ones_like(prompt), capacity=25)
    got, at = [last[:, None]], 12
    for count in steps:
        more, cache = run_more(model, tokens[:, at : at + count], cache)
        got.append(more)
        at += count
    np.testing.assert_allclose(
        jnp.concatenate(got, axis=1), expected[:, 11:], atol=2e-5
    )
    assert int(cache.length) == 20


def test_branches_of_a_row_are_rows_of_their_own(model):
    prompt, ways = drawn_tokens(1, 12), drawn_tokens(3, 17)[:, 12:]
    texts = jnp.concatenate([jnp.repeat(prompt, 3, axis=0), ways], axis=1)
    segments = jnp.ones_like(prompt)
    _, cache = run_prompt(model, prompt, segments=segments, capacity=30)
    visible, got = jnp.repeat(cache.segments[:, None] != 0, 3, axis=1), []
    for step in range(5):
        order = np.roll(np.arange(3), step)  # in which they stand side by side
        place = np.argsort(order)
        visible = visible.at[0, np.arange(3), 12 + 3 * step + place].set(True)
        hidden, cache = jax.jit(branch)(
            model,
            ways[order, step][None],
            cache,
            positions=jnp.full((1, 3), 12 + step),
            visible=visible[:, order],
        )
        got.append(hidden[0, place])
    expected = states(model, texts)[:, 12:]
    np.testing.assert_allclose(jnp.stack(got, axis=1), expected, atol=2e-5)


@pytest.mark.parametrize("passes", ["whole", "prefill", "prefill and extend"])
def test_left_padding_changes_nothing(model, passes):
    lengths, width, new = (1, 7, 16), 16, 4
    tokens = drawn_tokens(len(lengths), width + new)
    segments = (jnp.arange(width) >= width - jnp.array(lengths)[:, None]).astype(int)
    last, cache = run_prompt(
        model, tokens[:, :width], segments=segments, capacity=width + new
    )
    after, _ = run_more(model, tokens[:, width:], cache)
    together = states(model, tokens[:, :width], segments=segments)
    for row, length in enumerate(lengths):
        alone = states(model, tokens[row : row + 1, width - length :])[0]
        got, expected = {
            "whole": (together[row, -length:], alone[:length]),
            "prefill": (last[row], alone[length - 1]),
            "prefill and extend": (after[row], alone[length:]),
        }[passes]
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_what_stands_under_the_padding_is_not_read(model):
    tokens = drawn_tokens(1, 8)
    segments = jnp.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    kept = run_prompt(model, tokens, segments=segments, capacity=9)
    changed = run_prompt(
        model, jnp.where(segments == 0, 5, tokens), segments=segments, capacity=9
    )
    np.testing.assert_array_equal(kept[0], changed[0])
    token = tokens[:, :1]
    np.testing.assert_array_equal(
        run_more(model, token, kept[1])[0], run_more(model, token, changed[1])[0]
    )


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


def test_room_beyond_the_text_changes_nothing(model):
    prompt = drawn_tokens(2, 6)
    token = prompt[:, :1]
    narrow, wide = (
        run_more(
            model,
            token,
            run_prompt(
                model, prompt, segments=jnp.ones_like(prompt), capacity=capacity
            )[1],
        )[0]
        for capacity in (7, 64)
    )
    np.testing.assert_allclose(narrow, wide, atol=1e-5)


def test_jit_changes_nothing(model):
    tokens = drawn_tokens(2, 7)
    segments = jnp.ones_like(tokens)
    plain = prefill(model, tokens, segments=segments, capacity=9)
    compiled = run_prompt(model, tokens, segments=segments, capacity=9)
    np.testing.assert_allclose(plain[0], compiled[0], atol=1e-5)
    more = tokens[:, :2]
    np.testing.assert_allclose(
        extend(model, more, plain[1])[0],
        run_more(model, more, compiled[1])[0],
        atol=1e-5,
    )


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


def test_an_empty_cache_is_the_model_s(model):
    cache = empty_cache(tiny_llama(dtype=jnp.bfloat16), rows=3, capacity=11)
    ((keys, values),) = cache.pairs
    assert keys.shape == values.shape == (2, 3, 2, 11, 8)
    assert keys.dtype == values.dtype == jnp.bfloat16
    assert cache.segments.shape == (3, 11) and not cache.segments.any()
    assert int(cache.length) == 0


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
