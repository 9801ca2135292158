"""What is lowered for CUDA, without a GPU, at the shapes of real models."""

import dataclasses
import re
from collections import Counter

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from tiny_llama import TINY

from isara_jax.engine.kv_cache.cache import empty_kv_cache, step
from isara_jax.engine.kv_cache.layer_blocks import LayerBlocks
from isara_jax.engine.prefill.prefix_cache import prefill_chunk
from isara_jax.models.attention.dispatch import AttentionBackend, causal_attention
from isara_jax.models.llama.model import Llama
from isara_jax.runtime.mesh import make_mesh

NVIDIA = AttentionBackend("nvidia")
SHAPES = {"llama_7b": (32, 32, 128), "smollm2": (9, 3, 64)}


@pytest.fixture(autouse=True)
def _types_unchecked():
    """JAX describes a lowered program's arguments as values of our types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def layer_blocks_of(shape):
    heads, kv_heads, head_size = SHAPES[shape]
    config = dataclasses.replace(
        TINY, heads=heads, kv_heads=kv_heads, head_size=head_size, context=2048
    )
    model = jax.eval_shape(
        lambda: Llama(config, key=jax.random.key(0), dtype=jnp.bfloat16)
    )
    return LayerBlocks(model=model, blocks=(model.layers,))


def slots_of(layer_blocks, **room):
    return jax.eval_shape(lambda: empty_kv_cache(layer_blocks, backend=NVIDIA, **room))


def calls(program, *arguments, **options):
    """Counts the calls of what is no operation of XLA."""
    traced = jax.jit(program, **options).trace(*arguments)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    return Counter(re.findall(r"custom_call @(\S*(?:triton|cudnn)[^(]*)\(", text))


TRITON = "__gpu$xla.gpu.triton"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_has_triton_s_decoding(shape):
    layer_blocks = layer_blocks_of(shape)
    cache = slots_of(layer_blocks, rows=64, max_len=1024, max_shared_len=512)
    tokens = jax.ShapeDtypeStruct((64,), jnp.int32)
    assert calls(step, layer_blocks, tokens, cache) == {TRITON: 1}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_chunk_has_cudnn_s_flash_attention(shape, monkeypatch):
    monkeypatch.setattr(
        fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000
    )
    layer_blocks = layer_blocks_of(shape)
    path = slots_of(layer_blocks, rows=1, max_len=1024, max_shared_len=0)

    def chunk(layer_blocks, tokens, path, start):
        return prefill_chunk(
            layer_blocks,
            tokens,
            path,
            start=start,
            last=start,
            kv_len=512,
            mesh=make_mesh(data=1, model=1),
        )

    tokens = jax.ShapeDtypeStruct((1, 256), jnp.int32)
    start = jax.ShapeDtypeStruct((), jnp.int32)
    found = calls(chunk, layer_blocks, tokens, path, start)
    assert found == {"__cudnn$fmhaScaleBiasSoftmax": 1}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_of_whole_rows_has_triton_s_kernels(shape):
    heads, kv_heads, size = SHAPES[shape]

    def total(q, k, v, segments):
        mixed = causal_attention(
            q, k, v, segments=segments, window=None, backend=NVIDIA
        )
        return jnp.sum(mixed.astype(jnp.float32))

    q = jax.ShapeDtypeStruct((2, 1000, heads, size), jnp.bfloat16)
    k = jax.ShapeDtypeStruct((2, kv_heads, 1000, size), jnp.bfloat16)
    segments = jax.ShapeDtypeStruct((2, 1000), jnp.int32)
    gradient = jax.grad(total, argnums=(0, 1, 2))
    assert set(calls(gradient, q, k, k, segments)) == {TRITON}
    assert calls(gradient, q, k, k, segments)[TRITON] >= 3
