"""Which requests the engine takes, and in which order it prefills them."""

import pytest

from isara_jax.engine.request import Request, validate_length
from isara_jax.errors import InputError


def request(*token_ids, number=0, most=None):
    return Request(
        id="q", sample_index=number, token_ids=token_ids, max_new_tokens=most
    )


@pytest.mark.parametrize(
    ("length", "new", "context"), [(1, 1, 2), (5, 3, 8), (1, 0, 1)]
)
def test_a_prompt_that_fills_the_context_is_taken(length, new, context):
    assert validate_length(request(*range(length)), new=new, context=context) is None


@pytest.mark.parametrize(("length", "new"), [(0, 1), (6, 3), (9, 0)])
def test_a_prompt_without_room_is_refused(length, new):
    message = f"the prompt q has {length} tokens; with {new} new ones"
    with pytest.raises(InputError, match=message):
        validate_length(request(*range(length)), new=new, context=8)


def test_neighbours_in_order_share_the_longest_prefix():
    given = [request(5), request(1, 2, 3), request(1, 9), request(1, 2)]
    in_order = sorted(given, key=lambda r: r.sort_key)
    assert [r.token_ids for r in in_order] == [(1, 2), (1, 2, 3), (1, 9), (5,)]


def test_equal_prompts_are_ordered_by_their_sample_index():
    given = [request(1, number=10), request(1, number=9)]
    assert [r.sample_index for r in sorted(given, key=lambda r: r.sort_key)] == [9, 10]


@pytest.mark.parametrize(("most", "limit"), [(None, 8), (3, 3), (9, 8)])
def test_a_request_may_ask_for_fewer_tokens_than_the_call(most, limit):
    assert request(1, most=most).limit(8) == limit
