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
from isara_jax.engine.prefill.chunking import common_length, plan_spans
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
CUTS = tuple(plan_spans(PROMPTS))


def path_of(stack):
    return empty_prefix_cache(stack, longest=120, mesh=make_mesh(data=1, model=1))


def columns(path):
    count = len(path.tokens)
    keys = [np.asarray(block)[..., :count] for block in path.cache.keys]
    values = [np.asarray(block)[..., :count, :] for block in path.cache.values]
    return [*keys, *values, np.asarray(path.logits)]


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_reused_is_recomputed_to_the_bit(family, every, tmp_path):
    write_opt(tmp_path)
    stack = make_layer_blocks(tiny_llama() if family == "llama" else load_opt(tmp_path))
    path = path_of(stack)
    for prompt, spans in list(zip(PROMPTS, CUTS, strict=True))[::every]:
        path.run(prompt, spans)
        alone = path_of(stack)
        alone.run(prompt, spans)
        assert alone.reused_tokens == 0
        for ours, theirs in zip(columns(path), columns(alone), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert path.reused_tokens > 0


def test_what_is_shared_with_the_one_before_is_not_run_again():
    path = path_of(make_layer_blocks(tiny_llama()))
    shared = 0
    for before, (prompt, spans) in zip(
        [(), *PROMPTS], zip(PROMPTS, CUTS, strict=True), strict=False
    ):
        path.run(prompt, spans)
        same = common_length(before, prompt)
        shared += same if same >= 32 else 0
    assert path.reused_tokens == shared
    assert path.run_tokens == sum(map(len, PROMPTS)) - shared


@pytest.mark.parametrize("blocks", ["each layer", "all layers"])
def test_the_logits_are_those_of_a_whole_row(blocks):
    model = tiny_llama()
    stack = make_layer_blocks(model)
    if blocks == "all layers":
        stack = LayerBlocks(model=model, blocks=(model.layers,))
    path = path_of(stack)
    for prompt, spans in zip(PROMPTS, CUTS, strict=True):
        path.run(prompt, spans)
        np.testing.assert_allclose(
            path.logits, logits_of(model, [prompt])[0, -1], atol=1e-5
        )


def test_other_weights_need_another_path():
    prompt = PROMPTS[0]
    logits = []
    for seed in (0, 1):
        path = path_of(make_layer_blocks(tiny_llama(seed=seed)))
        path.run(prompt, CUTS[0])
        logits.append(path.logits)
    assert not jnp.allclose(*logits, atol=1e-2)


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(("data", "model"), [(4, 1), (2, 2)])
def test_devices_share_the_positions_of_a_chunk(data, model):
    flops = []
    for mesh in (make_mesh(data=1, model=1), make_mesh(data=data, model=model)):
        stack = make_layer_blocks(place(tiny_llama(), mesh))
        path = empty_prefix_cache(stack, longest=120, mesh=mesh)
        program = prefill_chunk.lower(
            stack,
            np.zeros((1, 128), np.int32),
            path.cache,
            start=np.int32(0),
            last=np.int32(127),
            kv_len=path.cache.kv_len(128),
            mesh=mesh,
        )
        flops.append(program.compile().cost_analysis()["flops"])
    # Attention to what is before is every device's.
    linear = 128 * sum(2 * array.size for array in jax.tree.leaves(tiny_llama().layers))
    assert flops[0] - flops[1] > 0.9 * (1 - 1 / (data * model)) * linear
