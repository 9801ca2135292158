"""KV caches for each backend's kernels, interpreted, against whole rows by XLA."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpret_kernels
from tiny_llama import TINY

from isara_jax.engine.kv_cache import cache as cache_module, paged
from isara_jax.engine.kv_cache.cache import (
    constrain_cache,
    empty_kv_cache,
    position_bytes,
    step,
)
from isara_jax.engine.kv_cache.flash import FlashKVCache
from isara_jax.engine.kv_cache.layer_blocks import LayerBlocks
from isara_jax.engine.kv_cache.paged import PagedKVCache
from isara_jax.engine.kv_cache.xla import XlaKVCache
from isara_jax.engine.prefill.prefix_cache import logits_after, prefill_chunk
from isara_jax.models.attention import (
    nvidia as nvidia_attention,
    xla as plain_attention,
)
from isara_jax.models.attention.dispatch import XLA, AttentionBackend
from isara_jax.models.decoder import hidden_states
from isara_jax.models.llama.model import Llama
from isara_jax.runtime.mesh import make_mesh, model_shardings

CHUNK, NEW = 32, 5
# The shared prefix fills no page, and rows end before, at and behind a page's end.
SHARED, LENGTHS = 21, (22, 29, 47, 32)
MODEL = dataclasses.replace(TINY, head_size=64, context=256)
TEXTS = np.random.default_rng(0).integers(0, 97, (4, 64)).astype(np.int32)
TEXTS[:, :SHARED] = TEXTS[0, :SHARED]


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    interpret_kernels(monkeypatch)
    narrow = (*nvidia_attention.HALF_PRECISION, jnp.float32)
    monkeypatch.setattr(nvidia_attention, "HALF_PRECISION", narrow)
    # Smaller pages and blocks show the same seams in less time.
    monkeypatch.setattr(paged, "PAGE", 16)
    monkeypatch.setattr(plain_attention, "KEY_BLOCK", 32)
    monkeypatch.setattr(nvidia_attention, "KV_LEN_STEP", 32)
    monkeypatch.setattr(nvidia_attention, "KEY_SPLIT", 32)
    monkeypatch.setattr(nvidia_attention, "KEY_BLOCK", 16)


@functools.cache
def layer_blocks_of(config, mesh, dtype=jnp.float32):
    # Weights that tell positions and heads apart.
    drawn = jax.jit(
        lambda: jax.tree.map(
            lambda array: (3 * array).astype(dtype),
            Llama(config, key=jax.random.key(0)),
        )
    )
    model = jax.device_put(drawn(), model_shardings(drawn(), mesh))
    return LayerBlocks(model=model, blocks=(model.layers,))


def written(layer_blocks, *, backend, mesh, shared):
    """Prefills the prompts, inserts each into a row, and decodes what follows.

    Returns the hidden states after the last token of each prompt and each one more.
    """
    kv_row, cache = jax.jit(_empty, static_argnames=("shared", "backend", "mesh"))(
        layer_blocks, shared=shared, backend=backend, mesh=mesh
    )
    fill = jax.jit(_filled, static_argnames="mesh")
    states = []
    for row, length in enumerate(LENGTHS):
        for start in range(0, length, CHUNK):
            chunk = np.zeros((1, CHUNK), np.int32)
            given = TEXTS[row, start : min(start + CHUNK, length)]
            chunk[0, : len(given)] = given
            kv_row, hidden = prefill_chunk(
                layer_blocks,
                chunk,
                kv_row,
                start=np.int32(start),
                last=np.int32(len(given) - 1),
                kv_len=64,
                mesh=mesh,
            )
        states.append(np.asarray(logits_after(layer_blocks.model, hidden)))
        cache = fill(cache, kv_row, row, length, shared, mesh=mesh)
    next_step = jax.jit(_next)
    states = [np.stack(states)]
    for count in range(NEW):
        tokens = TEXTS[np.arange(4), np.array(LENGTHS) + count]
        logits, cache = next_step(layer_blocks, tokens, cache)
        states.append(np.asarray(logits))
    return np.stack(states, axis=1), cache


def _empty(layer_blocks, *, shared, backend, mesh):
    empty = functools.partial(empty_kv_cache, layer_blocks, backend=backend)
    kv_row = empty(rows=1, max_len=96, max_shared_len=0)
    cache = empty(rows=4, max_len=57 - shared, max_shared_len=32 if shared else 0)
    return constrain_cache(kv_row, mesh), constrain_cache(cache, mesh)


def _filled(cache, kv_row, row, length, shared, *, mesh):
    cache = cache.share_prefix(kv_row, shared)
    return constrain_cache(cache.insert(kv_row, row=row, length=length), mesh)


def _next(layer_blocks, tokens, cache):
    hidden, cache = step(layer_blocks, tokens, cache)
    longer = dataclasses.replace(cache, lengths=cache.lengths + 1)
    return layer_blocks.model.logits(hidden), longer


@functools.cache
def whole(config):
    layer_blocks = layer_blocks_of(config, make_mesh(data=1, model=1))
    tokens = jnp.asarray(TEXTS)
    hidden = jax.jit(hidden_states, static_argnames=("remat", "backend"))(
        layer_blocks.model,
        tokens,
        segments=jnp.ones_like(tokens),
        positions=jnp.broadcast_to(jnp.arange(64), tokens.shape),
        remat="none",
        backend=XLA,
    )
    at = np.array(LENGTHS)[:, None] - 1 + np.arange(NEW + 1)
    chosen = hidden[np.arange(4)[:, None], at].reshape(4 * (NEW + 1), -1)
    return layer_blocks.model.logits(chosen).reshape(4, NEW + 1, -1)


CASES = [
    pytest.param({"window": 25}, SHARED, id="window into the prefix"),
    pytest.param({"head_size": 128, "heads": 2, "window": 6}, SHARED, id="MHA 128"),
    pytest.param({"heads": 9, "kv_heads": 3}, 0, id="SmolLM2, nothing shared"),
]
KINDS = {"xla": XlaKVCache, "nvidia": FlashKVCache, "tpu": PagedKVCache}


@pytest.mark.parametrize(("changed", "shared"), CASES)
@pytest.mark.parametrize("kind", ["nvidia", "tpu"])
def test_rows_are_whole_rows(kind, changed, shared):
    mesh = make_mesh(data=1, model=1)
    config = dataclasses.replace(MODEL, **changed)
    got, cache = written(
        layer_blocks_of(config, mesh),
        backend=AttentionBackend(kind),
        mesh=mesh,
        shared=shared,
    )
    assert isinstance(cache, KINDS[kind])
    np.testing.assert_allclose(got, whole(config), atol=3e-5)


@pytest.mark.parametrize("kind", ["nvidia", "tpu"])
def test_bf16_stays_bf16_and_near(kind):
    mesh = make_mesh(data=1, model=1)
    layer_blocks = layer_blocks_of(MODEL, mesh, jnp.bfloat16)
    got, cache = written(
        layer_blocks, backend=AttentionBackend(kind), mesh=mesh, shared=SHARED
    )
    held = jax.tree.leaves(cache.blocks)
    assert all(array.dtype == jnp.bfloat16 for array in held)
    np.testing.assert_allclose(got, whole(MODEL), atol=0.3)


@pytest.mark.parametrize(
    ("kind", "data", "model"),
    [("xla", 4, 2), ("nvidia", 4, 2), ("tpu", 4, 2), ("tpu", 2, 4)],
)
def test_eight_devices_are_one(kind, data, model):
    mesh = make_mesh(data=data, model=model)
    layer_blocks = layer_blocks_of(MODEL, mesh)
    got, cache = written(
        layer_blocks, backend=AttentionBackend(kind, mesh), mesh=mesh, shared=SHARED
    )
    np.testing.assert_allclose(got, whole(MODEL), atol=3e-5)
    largest = max(jax.tree.leaves(cache.blocks), key=lambda array: array.size)
    split = largest.sharding.shard_shape(largest.shape)
    parts = data * (model if model == 2 else 1)
    assert np.prod(split) * parts == largest.size


def test_what_triton_does_not_take_lies_as_xla_reads_it(monkeypatch):
    monkeypatch.undo()
    layer_blocks = layer_blocks_of(MODEL, make_mesh(data=1, model=1))
    made = functools.partial(
        empty_kv_cache,
        rows=2,
        max_len=33,
        max_shared_len=0,
        backend=AttentionBackend("nvidia"),
    )
    assert isinstance(made(layer_blocks), XlaKVCache), "fp32"
    model = jax.tree.map(lambda array: array.astype(jnp.bfloat16), layer_blocks.model)
    narrow = LayerBlocks(model=model, blocks=(model.layers,))
    assert isinstance(made(narrow), FlashKVCache)
    assert made(narrow).keys[0].shape == (2, 2, 2, 128, 64)


@pytest.mark.parametrize("kind", ["xla", "nvidia", "tpu"])
@pytest.mark.parametrize("changed", [{}, {"heads": 9, "kv_heads": 3}])
def test_position_bytes_are_those_of_the_cache(kind, changed):
    mesh = make_mesh(data=1, model=1)
    layer_blocks = layer_blocks_of(dataclasses.replace(MODEL, **changed), mesh)
    max_len = 1024
    cache = cache_module.empty_kv_cache(
        layer_blocks,
        rows=3,
        max_len=max_len,
        max_shared_len=0,
        backend=AttentionBackend(kind),
    )
    held = sum(array.nbytes for array in jax.tree.leaves(cache.blocks))
    positions = max_len + (16 if kind == "tpu" else 0)
    assert held == 3 * positions * position_bytes(layer_blocks, AttentionBackend(kind))
