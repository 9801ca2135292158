"""Whole rows on every platform's kernels, interpreted, against the plain form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpret_kernels

from isara_jax.models.attention import (
    dispatch as attention,
    nvidia as nvidia_attention,
    tpu as tpu_attention,
)
from isara_jax.models.attention.dispatch import (
    XLA,
    AttentionBackend,
    attention_backend,
    causal_attention,
)
from isara_jax.models.attention.xla import xla_causal_attention
from isara_jax.runtime.mesh import make_mesh


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    interpret_kernels(monkeypatch)
    # Interpreted in fp32, where a difference shows; on a GPU fp32 is for XLA.
    narrow = (*nvidia_attention.HALF_PRECISION, jnp.float32)
    monkeypatch.setattr(nvidia_attention, "HALF_PRECISION", narrow)
    # Smaller blocks show the same seams in less time.
    monkeypatch.setattr(tpu_attention, "ROW_BLOCKS", (128,))


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def rows(*, heads, kv_heads, size, length, batch=2):
    q = drawn(batch, length, heads, size)
    k = drawn(batch, kv_heads, length, size, seed=1)
    return q, k, drawn(batch, kv_heads, length, size, seed=2)


def packed(length):
    """Left padding and one text; two texts and padding on the right."""
    at = np.arange(length)
    padded = (at >= 37).astype(int)
    two = np.where(at < 50, 1, np.where(at < length - 9, 2, 0))
    return jnp.asarray(np.stack([padded, two]), jnp.int32)


def gradients(arrays, segments, backend):
    @jax.jit
    def total(*arrays):
        mixed = causal_attention(
            *arrays, segments=segments, window=None, backend=backend
        )
        return jnp.sum(jnp.where((segments != 0)[..., None, None], jnp.sin(mixed), 0))

    return jax.grad(total, argnums=(0, 1, 2))(*arrays)


SHAPES = [
    pytest.param(2, 2, 128, id="MHA 128"),
    pytest.param(9, 3, 64, id="SmolLM2"),
]
KINDS = ["nvidia", "tpu"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), SHAPES)
def test_packed_rows_are_those_of_the_plain_form(kind, heads, kv_heads, size):
    arrays = rows(heads=heads, kv_heads=kv_heads, size=size, length=150)
    segments = packed(150)
    got = causal_attention(
        *arrays, segments=segments, window=None, backend=AttentionBackend(kind)
    )
    plain = xla_causal_attention(*arrays, segments=segments)
    np.testing.assert_allclose(got, plain, atol=3e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_text_is_itself_alone(kind):
    q, k, v = rows(heads=4, kv_heads=2, size=64, length=150)
    whole = causal_attention(
        *(q, k, v), segments=packed(150), window=None, backend=AttentionBackend(kind)
    )
    alone = causal_attention(
        *(q[1:, 50:141], k[1:, :, 50:141], v[1:, :, 50:141]),
        segments=jnp.ones((1, 91), jnp.int32),
        window=None,
        backend=AttentionBackend(kind),
    )
    np.testing.assert_allclose(whole[1:, 50:141], alone, atol=3e-6)


@pytest.mark.parametrize(("kind", "window"), [("nvidia", 40), ("tpu", 1), ("tpu", 40)])
def test_a_window_is_that_of_the_plain_form(kind, window):
    arrays = rows(heads=4, kv_heads=2, size=64, length=150)
    got = causal_attention(
        *arrays, segments=packed(150), window=window, backend=AttentionBackend(kind)
    )
    plain = xla_causal_attention(*arrays, segments=packed(150), window=window)
    np.testing.assert_allclose(got, plain, atol=3e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_plain_form(kind):
    arrays = rows(heads=4, kv_heads=2, size=64, length=100)
    for got, plain in zip(
        gradients(arrays, packed(100), AttentionBackend(kind)),
        gradients(arrays, packed(100), XLA),
        strict=True,
    ):
        np.testing.assert_allclose(got, plain, atol=3e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("data", "model", "heads", "kv_heads"), [(4, 2, 4, 2), (2, 4, 6, 2)]
)
def test_eight_devices_are_one(kind, data, model, heads, kv_heads):
    mesh = make_mesh(data=data, model=model)
    arrays = rows(heads=heads, kv_heads=kv_heads, size=64, length=64, batch=4)
    segments = jnp.concatenate([packed(64)] * 2)
    program = jax.jit(causal_attention, static_argnames=("window", "backend"))
    got = program(
        *arrays, segments=segments, window=None, backend=AttentionBackend(kind, mesh)
    )
    plain = xla_causal_attention(*arrays, segments=segments)
    np.testing.assert_allclose(got, plain, atol=3e-6)
    if model == 2:
        for ours, theirs in zip(
            gradients(arrays, segments, AttentionBackend(kind, mesh)),
            gradients(arrays, segments, XLA),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, atol=3e-5)
    split = got.sharding.shard_shape(got.shape)
    assert split == (
        4 // data,
        64,
        heads // (model if kv_heads % model == 0 else 1),
        64,
    )


def test_the_kernels_are_those_of_the_platform(monkeypatch):
    assert attention_backend(None) == XLA, "8 devices, and no mesh to cut by"
    mesh = make_mesh(data=1, model=1)
    assert attention_backend(mesh) == AttentionBackend("xla", mesh)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for platform, kind in (("cpu", "xla"), ("gpu", "nvidia"), ("tpu", "tpu")):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        assert attention_backend(None) == AttentionBackend(kind)


@pytest.mark.parametrize(
    ("window", "dtype", "size", "taken"),
    [
        (None, jnp.bfloat16, 128, True),
        (None, jnp.float16, 64, True),
        (7, jnp.bfloat16, 128, False),
        (None, jnp.float32, 128, False),
        (None, jnp.bfloat16, 80, False),
        (None, jnp.bfloat16, 256, False),
    ],
)
def test_what_triton_does_not_take_is_left_to_xla(
    monkeypatch, window, dtype, size, taken
):
    monkeypatch.undo()
    run = []
    monkeypatch.setattr(
        nvidia_attention, "causal_attention", lambda q, *_, **__: run.append(True) or q
    )
    arrays = (
        array.astype(dtype) for array in rows(heads=2, kv_heads=1, size=size, length=8)
    )
    segments = jnp.ones((2, 8), jnp.int32)
    backend = attention.AttentionBackend("nvidia")
    causal_attention(*arrays, segments=segments, window=window, backend=backend)
    assert bool(run) == taken
