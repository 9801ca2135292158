"""The shapes and bytes of the train step that is compiled."""

import pytest

from isara_jax.fit.training import train_program
from isara_jax.runtime import bytes_on_device


def test_rows_are_full_and_divided_as_the_settings_say(fit_request):
    program = train_program(fit_request())
    assert program.name == "train step, 2 x 8 rows of 64"
    assert program.work.tokens == 16 * 63


def test_fp32_moments_take_twice_the_parameters(fit_request):
    parts = train_program(fit_request()).argument_bytes
    assert parts["optimizer state"] == pytest.approx(2 * parts["parameters"], rel=0.01)
    assert "frozen base" not in parts


def test_adapters_are_trained_on_a_frozen_base(fit_request):
    request = fit_request(lora={"lora_rank": 2})
    parts = train_program(request).argument_bytes
    assert parts["frozen base"] == bytes_on_device(request.weights)
    assert parts["parameters"] < parts["frozen base"]
