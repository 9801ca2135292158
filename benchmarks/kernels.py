"""Compiles for chips that are not there, and lists the attention kernels in programs.

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python -m benchmarks.kernels --chip=v5e
    XLA_FLAGS=--xla_gpu_autotune_level=0 python -m benchmarks.kernels --chip=h200

The compilers run on any CPU; `benchmarks/targets.py` says what they need. The programs
are a step of decoding and a chunk of a prompt on 2 x 2 chips, for a model that is small
but for its attention, and the gradient of whole rows. Stops with an error where one has
no kernel. The memory is what the compiler says that a program takes on a chip beside
its arguments: were a cache copied, it would be as large as the cache.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from jaxtyping import Array

from benchmarks.shapes import TINY
from benchmarks.targets import TARGETS, TPUS, Target
from isara_jax.engine.kv_cache import (
    KVCache,
    LayerBlocks,
    constrain_cache,
    empty_kv_cache,
    make_layer_blocks,
    step,
)
from isara_jax.engine.prefill import prefill_chunk
from isara_jax.models.attention import (
    AttentionBackend,
    attention_backend,
    causal_attention,
)
from isara_jax.models.llama import Llama, LlamaConfig
from isara_jax.runtime import (
    abstract_on,
    abstract_outputs,
    make_mesh,
    sharding_for,
)

ROWS, MAX_LEN, SHARED, CHUNK = 64, 512, 512, 256
TRAINED = (4, 1024)
MIB = 2**20

# Query heads, KV heads and their size.
HEADS = {"llama_7b": (32, 32, 128), "smollm2": (9, 3, 64)}

CHIPS = flags.DEFINE_multi_enum("chip", TPUS, list(TARGETS), "A chip to compile for.")
SHAPES = flags.DEFINE_multi_enum(
    "shape", list(HEADS), list(HEADS), "The attention of a model by this name."
)
LAYERS = flags.DEFINE_integer("layers", 2, "Layers, which are scanned.")


def config_of(shape: str) -> LlamaConfig:
    """Returns a model that has the attention of a known one, and is small otherwise."""
    heads, kv_heads, head_size = HEADS[shape]
    return dataclasses.replace(
        TINY,
        vocab_size=1024,
        width=256,
        layers=LAYERS.value,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        feed_forward=512,
        tied_head=True,
    )


def programs(target: Target, shape: str) -> Iterator[tuple[str, Any]]:
    """Yields the name of each program, and it."""
    mesh = make_mesh(data=2, model=2, devices=target.devices())
    build = functools.partial(Llama, config_of(shape), dtype=jnp.bfloat16)
    model = jax.eval_shape(lambda: build(key=jax.random.key(0)))
    model = abstract_on(model, mesh)
    span = jax.eval_shape(functools.partial(make_layer_blocks, mesh=mesh), model)
    blocks = tuple(abstract_on(block, mesh) for block in span.blocks)
    layer_blocks = LayerBlocks(model=model, blocks=blocks)

    def cache_of(**sizes: int) -> Any:
        def empty(layer_blocks: LayerBlocks) -> KVCache:
            return constrain_cache(
                empty_kv_cache(layer_blocks, backend=attention_backend(mesh), **sizes),
                mesh,
            )

        return abstract_outputs(jax.jit(empty), layer_blocks)

    def whole(dtype: Any, *size: int) -> jax.ShapeDtypeStruct:
        place = sharding_for(("batch", "time")[: len(size)], size, mesh)
        return jax.ShapeDtypeStruct(size, dtype, sharding=place)

    number = whole(jnp.int32)
    cache = cache_of(rows=ROWS, max_len=MAX_LEN, max_shared_len=SHARED)
    tokens = whole(jnp.int32, ROWS)
    next_token = jax.jit(step, donate_argnums=2)
    yield "decode", next_token.lower(layer_blocks, tokens, cache)
    kv_row = cache_of(rows=1, max_len=SHARED + MAX_LEN + CHUNK, max_shared_len=0)
    tokens = whole(jnp.int32, 1, CHUNK)
    given = {"start": number, "last": number, "kv_len": 1024, "mesh": mesh}
    yield "prefill", prefill_chunk.lower(layer_blocks, tokens, kv_row, **given)
    yield "gradient", _gradient_of_attention(model.config, attention_backend(mesh))


def _gradient_of_attention(config: LlamaConfig, backend: AttentionBackend) -> Any:
    """Lowers the gradient of attention to whole rows."""

    def described(*shape: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
        heads = backend.heads_axis(config.kv_heads)
        words = ("batch", heads if len(shape) == 4 else "time", "time", "head_dim")
        place = sharding_for(words[: len(shape)], shape, backend.mesh)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    def total(q: Array, k: Array, v: Array, segments: Array) -> Array:
        mixed = causal_attention(
            q.swapaxes(1, 2), k, v, segments=segments, window=None, backend=backend
        )
        return jnp.sum(mixed.astype(jnp.float32))

    rows, size = TRAINED
    q = described(rows, config.heads, size, config.head_size)
    k = described(rows, config.kv_heads, size, config.head_size)
    segments = described(rows, size, dtype=jnp.int32)
    return jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(q, k, k, segments)


def main(_: list[str]) -> None:
    """Prints a line a program."""
    for chip in CHIPS.value:
        target = TARGETS[chip]
        for shape in SHAPES.value:
            for name, lowered in programs(target, shape):
                begun = time.perf_counter()
                compiled = lowered.compile()
                seconds = time.perf_counter() - begun
                kernel = target.kernels[name]
                calls = [
                    line
                    for line in compiled.as_text().splitlines()
                    if target.call in line
                ]
                found = sum(kernel in call for call in calls)
                if not found:
                    sys.exit(f"{chip} {shape} {name}: no {kernel} in it")
                memory = compiled.memory_analysis()
                scratch = memory.temp_size_in_bytes / MIB
                held = memory.argument_size_in_bytes / MIB
                print(
                    f"{chip} {shape} {name}: {found} x {kernel}, "
                    f"{scratch:.0f} MiB beside {held:.0f}, {seconds:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    app.run(main)
