"""Which examples are trained on: those with a prompt and an answer, not too long."""

import pytest

from isara_jax.errors import InputError
from isara_jax.finetune.data.training_example import (
    TrainingExample,
    drop_too_long,
    num_positions,
)


def example(name, prompt=3, answer=2):
    return TrainingExample(
        id=name, prompt_tokens=(1,) * prompt, answer_tokens=(2,) * answer
    )


@pytest.mark.parametrize("empty", ["prompt_tokens", "answer_tokens"])
def test_nothing_may_be_empty(empty):
    fields = {"prompt_tokens": (1,), "answer_tokens": (2,), empty: ()}
    with pytest.raises(InputError, match=f"^a: {empty} is empty"):
        TrainingExample(id="a", **fields)


def test_the_last_token_is_only_predicted():
    assert len(example("a")) == 5 and num_positions(example("a")) == 4


def test_what_is_longer_is_left_out_and_named(caplog):
    given = [example("a"), example("b", prompt=9), example("c", prompt=8)]
    assert [e.id for e in drop_too_long(given, max_length=10)] == ["a", "c"]
    assert "1 of 3 examples are longer than 10 tokens" in caplog.text
    assert caplog.text.rstrip().endswith(": b")


def test_nothing_left_is_refused():
    with pytest.raises(InputError, match=r"^max_length=4: none of 1 examples"):
        drop_too_long([example("a")], max_length=4)
