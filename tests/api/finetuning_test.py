"""Finetuning on pairs from a notebook."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_run import SEEDS

import isara_jax as isara

CONFIG = isara.FinetuneConfig(
    learning_rate=1e-2, epochs=2, train_batch=4, accumulation=1
)
PAIRS = [(seed["question"], seed["answer"]) for seed in SEEDS]


def arrays(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model.weights)]


def moved(before, after):
    return max(
        np.abs(a - b).max() for a, b in zip(arrays(before), arrays(after), strict=True)
    )


def test_the_loss_falls_and_the_given_model_stays(model):
    before, steps = arrays(model), []
    tuned = isara.finetune(model, PAIRS, CONFIG, on_step=steps.append)
    assert [metrics.step for metrics in steps] == list(range(1, 7))
    assert steps[-1].loss < steps[0].loss
    assert moved(model, tuned) > 1e-3
    assert all(map(np.array_equal, before, arrays(model)))
    assert (tuned.source, tuned.dtype) == (model.source, model.dtype)
    isara.Engine(tuned).generate("who sat", isara.SamplingParams(max_new_tokens=2))


def test_tuples_mappings_and_examples_are_the_same(model):
    given = [
        PAIRS,
        SEEDS,
        [
            isara.Example(question=q, answer=a, origin=f"seed-{n}")
            for n, (q, a) in enumerate(PAIRS)
        ],
    ]
    short = dataclasses.replace(CONFIG, epochs=1)
    first, *others = (isara.finetune(model, pairs, short) for pairs in given)
    assert all(moved(first, other) == 0 for other in others)


def test_adapters_are_merged(model):
    lora = isara.LoraConfig(lora_rank=2, lora_targets="q,v")
    before = arrays(model)
    tuned = isara.finetune(model, PAIRS, CONFIG, lora=lora)
    layers, own = tuned.weights.layers, model.weights.layers
    assert moved(model, tuned) > 1e-4
    assert np.array_equal(layers.o.get_value(), own.o.get_value())
    assert all(map(np.array_equal, before, arrays(model)))


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([], "examples: there is none to finetune on"),
        ([{"question": "a"}], "examples, index 0: the field 'answer' is missing"),
        ([("a", " ")], "examples, index 0: the field 'answer' must be a text that is"),
    ],
)
def test_what_is_no_pair_is_refused_by_its_index(model, pairs, sentence):
    with pytest.raises(isara.InputError) as caught:
        isara.finetune(model, pairs)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("lora", "sentence"),
    [
        ({"lora_rank": 2, "base_dtype": "nf4"}, "base_dtype=nf4: weights are quant"),
    ],
)
def test_what_weights_are_read_with_is_refused(model, lora, sentence):
    with pytest.raises(isara.InputError) as caught:
        isara.finetune(model, PAIRS, lora=isara.LoraConfig(**lora))
    assert str(caught.value).startswith(sentence)
