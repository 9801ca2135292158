"""The passes that keep keys and values, against the pass over whole rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import tiny_llama
from whole_rows import drawn_tokens, states

from isara_jax.models.decoder_cached import empty_cache, extend, prefill

run_prompt = jax.jit(prefill, static_argnames="capacity")
run_more = jax.jit(extend)


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


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


def test_an_empty_cache_is_the_model_s(model):
    cache = empty_cache(tiny_llama(dtype=jnp.bfloat16), rows=3, capacity=11)
    assert cache.keys.shape == cache.values.shape == (2, 3, 2, 11, 8)
    assert cache.keys.dtype == cache.values.dtype == jnp.bfloat16
    assert cache.segments.shape == (3, 11) and not cache.segments.any()
    assert int(cache.length) == 0
