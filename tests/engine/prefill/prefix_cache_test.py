"""A prompt that goes on from the one before is that prompt run alone, bit by bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from completions import place
from tiny_llama import tiny_llama
from tiny_opt import load_opt, write_opt
from whole_rows import logits_of

from isara_jax.engine.kv_cache.layer_blocks import LayerBlocks, make_layer_blocks
from isara_jax.engine.prefill.chunking import common_prefix_len, plan_spans
from isara_jax.engine.prefill.prefix_cache import empty_prefix_cache, prefill_chunk
from isara_jax.runtime.mesh import make_mesh

pytestmark = pytest.mark.optimized

RANDOM = np.random.default_rng(0).integers(0, 97, 120).tolist()
PROMPTS = sorted(
    [
        RANDOM[:90],
        [*RANDOM[:80], 5, 6, 7],
        [*RANDOM[:80], 5, 6, 8, 9],
        [*RANDOM[:37], *RANDOM[30:60]],
        RANDOM[:38],
        RANDOM[:38],
        RANDOM,
        [*RANDOM[:20], 7],
    ]
)
SPANS = tuple(plan_spans(PROMPTS))


def empty(layer_blocks):
    mesh = make_mesh(data=1, model=1)
    return empty_prefix_cache(layer_blocks, longest=120, mesh=mesh)


def columns(prefix):
    count = prefix.length
    keys = [np.asarray(block)[..., :count] for block in prefix.kv_row.keys]
    values = [np.asarray(block)[..., :count, :] for block in prefix.kv_row.values]
    return [*keys, *values, np.asarray(prefix.logits)]


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_reused_is_recomputed_to_the_bit(family, every, tmp_path):
    write_opt(tmp_path)
    layer_blocks = make_layer_blocks(
        tiny_llama() if family == "llama" else load_opt(tmp_path)
    )
    cache, reused = empty(layer_blocks), 0
    for prompt, spans in list(zip(PROMPTS, SPANS, strict=True))[::every]:
        cache, prefix = cache.prefill(prompt, spans)
        _, alone = empty(layer_blocks).prefill(prompt, spans)
        assert alone.reused_tokens == 0
        for ours, theirs in zip(columns(prefix), columns(alone), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        reused += prefix.reused_tokens
    assert reused > 0


def test_what_is_shared_with_the_one_before_is_not_run_again():
    cache = empty(make_layer_blocks(tiny_llama()))
    for before, (prompt, spans) in zip(
        [(), *PROMPTS], zip(PROMPTS, SPANS, strict=True), strict=False
    ):
        cache, prefix = cache.prefill(prompt, spans)
        same = common_prefix_len(before, prompt)
        assert prefix.reused_tokens == (same if same >= 32 else 0)
        assert prefix.computed_tokens == len(prompt) - prefix.reused_tokens
        assert prefix.token_ids == tuple(prompt)


@pytest.mark.parametrize("blocks", ["each layer", "all layers"])
def test_the_logits_are_those_of_a_whole_row(blocks):
    model = tiny_llama()
    layer_blocks = make_layer_blocks(model)
    if blocks == "all layers":
        layer_blocks = LayerBlocks(model=model, blocks=(model.layers,))
    cache = empty(layer_blocks)
    for prompt, spans in zip(PROMPTS, SPANS, strict=True):
        cache, prefix = cache.prefill(prompt, spans)
        np.testing.assert_allclose(
            prefix.logits, logits_of(model, [prompt])[0, -1], atol=1e-5
        )


def test_other_weights_need_another_cache():
    prompt = PROMPTS[0]
    logits = []
    for seed in (0, 1):
        cache = empty(make_layer_blocks(tiny_llama(seed=seed)))
        _, prefix = cache.prefill(prompt, SPANS[0])
        logits.append(prefix.logits)
    assert not jnp.allclose(*logits, atol=1e-2)


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(("data", "model"), [(4, 1), (2, 2)])
def test_devices_share_the_positions_of_a_chunk(data, model):
    flops = []
    for mesh in (make_mesh(data=1, model=1), make_mesh(data=data, model=model)):
        layer_blocks = make_layer_blocks(place(tiny_llama(), mesh))
        row = empty_prefix_cache(layer_blocks, longest=120, mesh=mesh).kv_row
        program = prefill_chunk.lower(
            layer_blocks,
            np.zeros((1, 128), np.int32),
            row,
            start=np.int32(0),
            last=np.int32(127),
            kv_len=row.kv_len(128),
            mesh=mesh,
        )
        flops.append(program.compile().cost_analysis()["flops"])
    # Attention to what is before is every device's.
    linear = 128 * sum(2 * array.size for array in jax.tree.leaves(tiny_llama().layers))
    assert flops[0] - flops[1] > 0.9 * (1 - 1 / (data * model)) * linear
