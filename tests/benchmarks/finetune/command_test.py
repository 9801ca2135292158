"""A quick look at the workloads on a tiny model, and at a shape's steps."""

import re

import pytest
import transformers
from processes import QUICKLY_COMPILED, run_module
from tiny_families import LLAMA

SIDE = r"[\d.]+ (?:tok/s|s), [\d.]+ GB"
HEADER = r"commit \w+( with changes)?, \d+ cores of .+, Python 3.*, jax .*, torch .*"


def lines(*arguments):
    done = run_module("benchmarks.finetune", *arguments, **QUICKLY_COMPILED)
    assert done.returncode == 0, done.stderr
    header, *others = done.stdout.splitlines()
    assert re.fullmatch(HEADER, header)
    return others


@pytest.mark.slow
def test_every_work_is_measured_against_torch(tmp_path):
    config = transformers.LlamaConfig(**LLAMA | {"max_position_embeddings": 256})
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    small = ("--shrink=32", "--repeats=1", "--steps=1")
    found = lines(f"--model={tmp_path}", *small)
    for name, line in zip(("dense", "remat", "lora", "qa"), found, strict=True):
        end = r"; [\d.]+ s of ours are compilation" if name == "qa" else ""
        assert re.fullmatch(
            rf"{name}: isara_jax {SIDE}; torch {SIDE}; [\d.]+ times as fast, "
            rf"[\d.]+ times the memory{end}",
            line,
        ), line


@pytest.mark.slow
def test_a_shape_s_steps_are_set_against_the_device():
    small = ("--rows=2", "--length=64", "--segments=2", "--steps=2")
    line, lora, ratio = lines("--shape=tiny", "--base_dtype=nf4", *small)
    assert "LoRA of rank 8 on all, base nf4: " in lora
    assert re.fullmatch(r"lora / dense: [\d.]+ times the tokens a second", ratio)
    rate = r"tiny: [\d,]+ parameters on cpu, 2 rows of 64, 2 examples each, bfloat16"
    assert re.match(rate + r".*: \d+ tokens/s, [\d.]+ s a step, [\d.]+ TFLOP/s", line)
    assert re.search(r"measured matrix rate [\d.]+ TFLOP/s, MFU of it [\d.]+%", line)


def test_the_flops_of_a_step_are_those_of_its_products():
    from benchmarks.finetune.random_weights import step_flops
    from benchmarks.shapes import SHAPES
    from isara_jax.finetune.data.training_example import TrainingExample

    def one(positions):
        return TrainingExample(
            id="x", prompt_tokens=(1,), answer_tokens=(2,) * positions
        )

    layer = 4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096
    parameters = 32 * layer + 32_000 * 4096 + 4096
    plain = 6 * parameters * 2048
    whole = step_flops(SHAPES["llama7b"], [one(2048)])
    # Scores and mixing, each 2 FLOPs for a half of T x T, thrice with the gradient.
    assert whole - plain == pytest.approx(3 * 2 * 2048**2 * 4096 * 32)
    packed = step_flops(SHAPES["llama7b"], [one(1024), one(1024)])
    assert packed - plain == pytest.approx((whole - plain) / 2)
    frozen = step_flops(SHAPES["llama7b"], [one(2048)], frozen=True)
    assert whole - frozen == pytest.approx(plain / 3)
