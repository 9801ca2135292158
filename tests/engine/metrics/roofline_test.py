"""Bytes and operations counted by hand, and what an engine is charged for."""

import dataclasses

import jax
import numpy as np
import pytest
from pretrained import SMOLLM2, needs_smollm2
from tiny_llama import TINY, tiny_llama
from tiny_opt import TINY_OPT

from isara_jax.engine.engine import Engine
from isara_jax.engine.metrics.roofline import (
    ModelSizes,
    decode_cost,
    model_sizes,
    prefill_cost,
)
from isara_jax.engine.metrics.throughput import EngineMetrics
from isara_jax.engine.request import Request
from isara_jax.engine.sampling.completion import StopCriteria
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.models.checkpoints.load import abstract_model
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.llama.model import Llama
from isara_jax.models.opt.model import Opt
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.sources import locate

# 10 weights a token, 5 of the head, 2 bytes each; 3 bytes a position, 7 FLOPs a pair.
SMALL = ModelSizes(body=10, head=5, itemsize=2, position_bytes=3, pair=7, window=None)


def test_a_llama_by_hand():
    # Two layers of width 32: norms, q and o of 4 heads of 8, k and v of 2, three of 64.
    layer = 2 * 32 + 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    assert model_sizes(tiny_llama()) == ModelSizes(
        body=2 * layer + 32,
        head=97 * 32,
        itemsize=4,
        position_bytes=2 * 2 * 2 * 8 * 4,
        pair=4 * 2 * 4 * 8,
        window=None,
    )


def test_a_head_of_its_own_counts_once():
    untied = dataclasses.replace(TINY, tied_head=False)
    model = jax.eval_shape(
        lambda: Llama(untied, key=jax.random.key(0), dtype="bfloat16")
    )
    sizes, tied = model_sizes(model), model_sizes(tiny_llama())
    assert (sizes.body, sizes.head) == (tied.body, tied.head)
    assert (sizes.itemsize, sizes.position_bytes) == (2, tied.position_bytes // 2)


def test_positions_that_are_looked_up_do_not_count():
    config = dataclasses.replace(TINY_OPT, embedding_width=16)
    model = jax.eval_shape(lambda: Opt(config, key=jax.random.key(0)))
    counted = model_sizes(model)
    everything = sum(array.size for array in jax.tree.leaves(model))
    looked_up = model.positions.get_value().size
    assert counted.body + counted.head == everything - looked_up


@needs_smollm2
def test_the_parameters_of_smollm2():
    config = open_model(locate(SMOLLM2)).config
    sizes = model_sizes(abstract_model(config, dtype="float32"))
    assert sizes.body + sizes.head == 134_515_008
    assert sizes.position_bytes == 46_080


def test_prefill_by_hand():
    # Positions 2, 3 and 4 see 3 + 4 + 5 = 12; the head only runs at the last.
    cost = prefill_cost(SMALL, start=2, end=5)
    assert cost.flops == 2 * (3 * 10 + 5) + 12 * 7
    assert cost.bytes == 15 * 2 + 5 * 3


def test_decoding_by_hand():
    # One slot writes two tokens after 4 positions, the other one after 6.
    new, lengths = np.array([2, 1, 0]), np.array([4, 6, 9])
    pairs = 5 + 6 + 7
    cost = decode_cost(SMALL, lengths=lengths, new=new, shared_len=0)
    assert cost.flops == 2 * 15 * 3 + pairs * 7
    assert cost.bytes == 2 * 15 * 2 + pairs * 3


def test_shared_positions_are_read_once_a_step_but_computed_for_all():
    new, lengths = np.array([2, 1, 0]), np.array([4, 6, 9])
    alone = decode_cost(SMALL, lengths=lengths, new=new, shared_len=0)
    together = decode_cost(SMALL, lengths=lengths, new=new, shared_len=3)
    assert together.flops == alone.flops
    # Three tokens in two steps: the three positions are read twice instead of thrice.
    assert together.bytes == alone.bytes - 3 * 3


def test_no_more_than_the_window_is_seen():
    narrow = ModelSizes(body=10, head=5, itemsize=2, position_bytes=3, pair=7, window=4)
    assert prefill_cost(narrow, start=2, end=6).flops == 2 * 45 + (3 + 4 + 4 + 4) * 7
    cost = decode_cost(narrow, lengths=np.array([2]), new=np.array([3]), shared_len=0)
    assert cost.bytes == 3 * 30 + (3 + 4 + 4) * 3


def test_nothing_is_free_of_cost():
    cost = decode_cost(SMALL, lengths=np.zeros(2), new=np.zeros(2, int), shared_len=0)
    assert (cost.bytes, cost.flops) == (0, 0)


def written(prompts, *, slots, new):
    """Returns what an engine counted while it wrote `new` tokens after each."""
    metrics = EngineMetrics()
    engine = Engine(
        model=tiny_llama(),
        mesh=make_mesh(data=1, model=1),
        slots=slots,
        context=128,
        check=lambda: None,
    )
    list(
        engine.generate(
            [
                Request(id=str(number), sample_index=number, token_ids=tuple(tokens))
                for number, tokens in enumerate(prompts)
            ],
            sampling_params=SamplingParams(max_new_tokens=new, temperature=0.0),
            stop_criteria=StopCriteria(eos=(), stops=(), decode=str),
            key=jax.random.key(0),
            metrics=metrics,
        )
    )
    return metrics


@pytest.mark.parametrize("slots", [1, 3])
def test_an_engine_is_charged_for_its_prompts_and_tokens(slots):
    # More tokens than are decoded between two looks at the slots.
    lengths, new = [5, 9, 20], 20
    prompts = [range(n + 1, n + 1 + length) for n, length in enumerate(lengths)]
    metrics, sizes = written(prompts, slots=slots, new=new), model_sizes(tiny_llama())
    assert sum(cost.flops for cost in metrics.prefill_costs) == sum(
        prefill_cost(sizes, start=0, end=length).flops for length in lengths
    )
    pairs = sum(length + n for length in lengths for n in range(1, new + 1))
    steps = new * len(lengths) // slots
    weights = 4 * (sizes.body + sizes.head)
    assert sum(cost.bytes for cost in metrics.decode_costs) == (
        steps * weights + pairs * sizes.position_bytes
    )


def test_an_engine_is_charged_once_for_what_prompts_share():
    prefix = list(range(1, 71))
    prompts = [[*prefix, 80, *range(5)], [*prefix, 90, *range(9)]]
    metrics, sizes = written(prompts, slots=2, new=3), model_sizes(tiny_llama())
    assert sum(cost.flops for cost in metrics.prefill_costs) == (
        prefill_cost(sizes, start=0, end=76).flops
        + prefill_cost(sizes, start=70, end=80).flops
    )
    own = sum(length + n for length in (6, 10) for n in (1, 2, 3))
    assert sum(cost.bytes for cost in metrics.decode_costs) == (
        3 * 4 * (sizes.body + sizes.head) + (own + 3 * 70) * sizes.position_bytes
    )
