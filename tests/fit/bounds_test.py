"""What must be computed and moved at least, beside the benchmark's own count."""

import pytest
from tiny_llama import TINY

from benchmarks.finetune.random_weights import step_flops
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.fit.bounds import chunk_work, step_work, token_work

LENGTH, EXAMPLES, STATE = 40, 6, 1000


def step_of(asked):
    return step_work(
        asked, examples=EXAMPLES, length=LENGTH, micro_batches=2, state=STATE
    )


def test_a_step_computes_what_the_benchmark_counts(fit_request):
    example = TrainingExample(id="", prompt_tokens=(0,), answer_tokens=(0,) * LENGTH)
    # The benchmark takes a table to be looked up only, which here is the head as well.
    head = 6 * TINY.vocab_size * TINY.width * LENGTH * EXAMPLES
    counted = step_flops(TINY, [example] * EXAMPLES) + head
    work = step_of(fit_request())
    # Of attention it leaves the half pair of a position with itself out.
    assert 8 * work.flops == pytest.approx(counted, rel=0.01)
    assert work.tokens == LENGTH * EXAMPLES


def test_a_step_on_a_frozen_base_computes_less(fit_request):
    whole = step_of(fit_request())
    adapted = step_of(fit_request(lora={"lora_rank": 1}))
    assert 0.6 < adapted.flops / whole.flops < 0.9


def test_every_micro_batch_reads_the_weights_of_a_model_s_part(fit_request):
    work, halved = step_of(fit_request()), step_of(fit_request(mesh_model=2))
    weights = 4 * 21_696
    assert work.bytes == 2 * 2 * weights + 2 * STATE
    assert halved.bytes == 2 * 2 * weights / 2 + 2 * STATE


def test_writing_reads_the_weights_and_the_cache(fit_request):
    asked = fit_request(devices=1)
    weights, position = 4 * 21_696, 2 * 2 * 2 * 8 * 4
    assert token_work(asked, rows=3, length=9).bytes == weights + 3 * 10 * position
    assert chunk_work(asked, width=4, end=10).bytes == weights + 10 * position


def test_beams_compute_for_each_and_read_once(fit_request):
    one = token_work(fit_request(), rows=3, length=9)
    four = token_work(fit_request(), rows=3, length=9, beams=4)
    assert (four.flops, four.bytes) == (4 * one.flops, one.bytes)
    assert four.tokens == 12
