"""The settings of prompts: their defaults are the paper's."""

import pytest

from isara_jax.errors import FieldError
from isara_jax.prompts.config import PromptConfig


def test_the_defaults_are_the_papers():
    config = PromptConfig()
    assert (config.template, config.demo_order) == ("paper", "paper")
    assert config.demo_tokens == 2000


def test_a_negative_budget_is_refused():
    with pytest.raises(FieldError, match=r"^demo_tokens=-1: must be 0 or more$"):
        PromptConfig(demo_tokens=-1)
