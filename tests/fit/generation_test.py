"""The largest call of the engine, by a request's prompts and slots."""

import pytest

from isara_jax.fit.generation import OPEN_TURN, generation_programs, largest_call


def test_a_prompt_has_demonstrations_and_an_open_turn_within_the_context(fit_request):
    context = fit_request().shape.context
    new = fit_request().sampling_params.max_new_tokens
    assert largest_call(fit_request()).prompt_len == min(OPEN_TURN, context - new)
    assert largest_call(fit_request(demo_tokens=10**6)).prompt_len == context - new


def test_unknown_memory_stays_unknown_and_the_weights_are_taken_off(fit_request):
    assert largest_call(fit_request(memory=None)).free is None
    assert largest_call(fit_request(memory=1 << 30)).free < 1 << 30


@pytest.mark.usefixtures("shapes_for_arrays")
def test_a_prefill_and_a_decode_step_are_compiled(fit_request):
    prefill, decode = generation_programs(fit_request())
    assert (
        prefill.argument_bytes["parameters"] == decode.argument_bytes["parameters"] > 0
    )
    assert prefill.work.tokens >= 1 and decode.work.tokens >= 1
