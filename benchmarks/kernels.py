"""Compiles for TPUs that are not there, and lists the attention kernels in programs.

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python -m benchmarks.kernels --chip=v5e

Needs libtpu, whose compiler runs on any CPU. The programs are a step of decoding and a
chunk of a prompt on 2 x 2 chips, for a model that is small but for its attention, and
the gradient of whole rows. Stops with an error where one has no kernel. The memory is
what the compiler says that a program takes on a chip beside its arguments: were a cache
copied, it would be as large as the cache.
"""

import dataclasses
import functools
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.experimental import topologies
from jaxtyping import Array

from benchmarks.shapes import TINY
from isara_jax.engine.path import advance
from isara_jax.engine.slots import empty_slots, step
from isara_jax.engine.stack import Stack
from isara_jax.models.attention import Kernels, kernels_for, whole_rows
from isara_jax.models.llama import Llama, LlamaConfig
from isara_jax.runtime.mesh import abstract_on, make_mesh, sharding_for

TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
ROWS, CAPACITY, SHARED, CHUNK = 64, 512, 512, 256
TRAINED = (4, 1024)
MIB = 2**20

# Query heads, KV heads and their size.
HEADS = {"llama_7b": (32, 32, 128), "smollm2": (9, 3, 64)}

CHIPS = flags.DEFINE_multi_enum(
    "chip", list(TOPOLOGIES), list(TOPOLOGIES), "A chip to compile for."
)
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


def programs(chip: str, shape: str) -> Iterator[tuple[str, str, Any]]:
    """Yields the name of each program, of the kernel that is due in it, and it."""
    devices = topologies.get_topology_desc(
        platform="tpu", topology_name=TOPOLOGIES[chip]
    ).devices
    mesh = make_mesh(data=2, model=2, devices=devices)
    build = functools.partial(Llama, config_of(shape), dtype=jnp.bfloat16)
    model = jax.eval_shape(lambda: build(key=jax.random.key(0)))
    model = abstract_on(model, mesh)
    stack = Stack(model=model, blocks=(model.layers,))
    slots = functools.partial(_slots, stack, mesh=mesh)

    def whole(dtype: Any, *size: int) -> jax.ShapeDtypeStruct:
        place = sharding_for(("batch", "time")[: len(size)], size, mesh)
        return jax.ShapeDtypeStruct(size, dtype, sharding=place)

    paged, number = "ragged_paged_attention", whole(jnp.int32)
    cache = slots(rows=ROWS, capacity=CAPACITY, shared=SHARED)
    tokens = whole(jnp.int32, ROWS)
    next_token = jax.jit(step, donate_argnums=2)
    yield "decode", paged, next_token.lower(stack, tokens, cache)
    path = slots(rows=1, capacity=SHARED + CAPACITY + CHUNK, shared=0)
    tokens = whole(jnp.int32, 1, CHUNK)
    reach = {"start": number, "last": number, "reach": 1024, "mesh": mesh}
    yield "prefill", paged, advance.lower(stack, tokens, path, **reach)
    gradient = _gradient_of_attention(model.config, kernels_for(mesh))
    yield "gradient", "splash_mha", gradient


def _gradient_of_attention(config: LlamaConfig, kernels: Kernels) -> Any:
    """Lowers the gradient of attention to whole rows."""

    def described(*shape: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
        heads = kernels.heads_word(config.kv_heads)
        words = ("batch", heads if len(shape) == 4 else "time", "time", "head_dim")
        place = sharding_for(words[: len(shape)], shape, kernels.mesh)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    def total(q: Array, k: Array, v: Array, segments: Array) -> Array:
        mixed = whole_rows(
            q.swapaxes(1, 2), k, v, segments=segments, window=None, kernels=kernels
        )
        return jnp.sum(mixed.astype(jnp.float32))

    rows, size = TRAINED
    q = described(rows, config.heads, size, config.head_size)
    k = described(rows, config.kv_heads, size, config.head_size)
    segments = described(rows, size, dtype=jnp.int32)
    return jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(q, k, k, segments)


def _slots(stack: Stack, *, mesh: Any, **room: int) -> Any:
    kernels = kernels_for(mesh)
    cache = jax.eval_shape(lambda: empty_slots(stack, kernels=kernels, **room))
    heads = kernels.heads_word(cache.kv_heads)
    pages = ("layers", "batch", "time", heads, "head_dim")

    def placed(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        words = pages if array.ndim == len(pages) else ("batch",) * array.ndim
        place = sharding_for(words, array.shape, mesh)
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)

    return jax.tree.map(placed, cache)


def main(_: list[str]) -> None:
    """Prints a line a program."""
    for chip in CHIPS.value:
        for shape in SHAPES.value:
            for name, kernel, lowered in programs(chip, shape):
                begun = time.perf_counter()
                compiled = lowered.compile()
                seconds = time.perf_counter() - begun
                calls = re.findall(r".*tpu_custom_call.*", compiled.as_text())
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
