"""The engine goes on with fewer slots where memory cannot hold all of them."""

import dataclasses

import jax
import pytest
from completions import GREEDY, PROMPTS, SAMPLED, SHARING, assert_same, complete
from tiny_llama import TINY, tiny_llama

from isara_jax.engine import continuous_batching, scheduler
from isara_jax.engine.kv_cache import layer_blocks
from isara_jax.engine.metrics.throughput import EngineMetrics
from isara_jax.engine.scheduler import plan_groups


@pytest.fixture(scope="module")
def alone():
    """Every prompt's completion, of a batch that memory can hold."""
    return complete(tiny_llama(), PROMPTS, sampling_params=SAMPLED)


@pytest.mark.parametrize("place", ["empty_state", "decode"])
def test_a_group_that_memory_has_no_room_for_goes_on_in_fewer_slots(
    alone, monkeypatch, capsys, place
):
    program, calls = getattr(continuous_batching, place), []

    def failing(*arguments, **named):
        rows = named["rows"] if "rows" in named else arguments[1].done.shape[0]
        calls.append(rows)
        if rows > 2 and (place == "empty_state" or len(calls) > 3):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return program(*arguments, **named)

    monkeypatch.setattr(continuous_batching, place, failing)
    found = complete(tiny_llama(), PROMPTS, sampling_params=SAMPLED, slots=5)
    assert_same(found, alone)
    assert calls[0] == 5 and calls[-1] == 2
    assert "memory has no room for 5 slots: going on with 2" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["empty_beams", "search"])
def test_beams_that_memory_has_no_room_for_go_on_in_fewer_slots(
    monkeypatch, capsys, place
):
    params = dataclasses.replace(SAMPLED, beams=2, max_new_tokens=6)
    alone = complete(tiny_llama(), PROMPTS, sampling_params=params, slots=2)
    program, calls = getattr(continuous_batching, place), []

    def failing(*arguments, **named):
        rows = named["rows"] if "rows" in named else arguments[1].done.shape[0]
        calls.append(rows)
        if rows > 2 and (place == "empty_beams" or len(calls) > 1):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return program(*arguments, **named)

    monkeypatch.setattr(continuous_batching, place, failing)
    found = complete(tiny_llama(), PROMPTS, sampling_params=params, slots=4)
    assert_same(found, alone)
    assert calls[0] == 4 and calls[-1] == 2
    assert "memory has no room for 4 slots: going on with 2" in capsys.readouterr().err


def test_memory_for_no_slot_at_all_is_told(monkeypatch):
    def failing(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(continuous_batching, "decode", failing)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        complete(tiny_llama(), PROMPTS, sampling_params=GREEDY, slots=4)


@pytest.mark.parametrize(("rows", "slots"), [(0.2, 1), (3.5, 3), (50, 8)])
def test_memory_decides_how_many_slots_there_are(
    alone, monkeypatch, capfd, rows, slots
):
    config = TINY
    longest = max(len(prompt.token_ids) for prompt in PROMPTS)
    position = 2 * config.layers * config.kv_heads * config.head_size * 4
    (group,) = plan_groups(
        PROMPTS, slots=8, row_multiple=1, max_new_tokens=20, context=config.context
    )
    row = position * group.max_len + 20 * config.vocab_size
    whole = position * (group.max_len + longest)
    free = (whole + rows * row) / scheduler.MEMORY_SHARE
    monkeypatch.setattr(scheduler, "free_bytes", lambda: int(free) + 1)
    metrics = EngineMetrics()
    found = complete(tiny_llama(), PROMPTS, sampling_params=SAMPLED, metrics=metrics)
    assert_same(found, alone)
    said = f"memory has room for {slots} slots, not 8" in capfd.readouterr().err
    assert said == (slots < 8)
    # Every slot writes 20 tokens a prompt, so its steps tell how many slots there were.
    assert metrics.slot_steps == -(-8 // slots) * slots * 20


def test_layers_that_memory_cannot_hold_twice_stay_in_one_block(alone, monkeypatch):
    monkeypatch.setattr(layer_blocks, "free_bytes", lambda: 1000)
    assert len(layer_blocks.make_layer_blocks(tiny_llama()).blocks) == 1
    assert_same(complete(tiny_llama(), PROMPTS, sampling_params=SAMPLED), alone)


def test_groups_of_several_sizes_are_no_lack_of_memory(capfd):
    prompts = [*SHARING, *PROMPTS[:3]]
    planned = plan_groups(
        prompts, slots=8, row_multiple=1, max_new_tokens=20, context=TINY.context
    )
    assert len({group.rows for group in planned}) > 1
    complete(tiny_llama(), prompts, sampling_params=GREEDY, slots=8)
    assert "memory" not in capfd.readouterr().err
