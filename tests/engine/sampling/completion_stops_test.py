"""Where a continuation is cut."""

import pytest
from hypothesis import given, settings, strategies as st

from isara_jax.engine.sampling.completion import find_stop, tokens_until_stop
from isara_jax.prompts.templates import PAPER_STOPS


@pytest.mark.parametrize(
    ("text", "stops", "at"),
    [
        ("", ("END",), None),
        ("no stop here", ("END",), None),
        ("a END b", ("END",), 2),
        ("END b", ("END",), None),  # at position 0 it does not count
        ("END b END", ("END",), 6),
        (" END", ("END",), 1),
        ("a USER b END", ("END", "USER"), 2),
        ("USER END", ("END", "USER"), 5),
        ("a end", ("END",), None),
        ("aaaa", ("aa",), 1),
        ("a END", (), None),
        (" Bats see.\n\nBEGINNING OF CONVERSATION", PAPER_STOPS, 12),
    ],
)
def test_the_first_stop_past_the_beginning(text, stops, at):
    assert find_stop(text, stops) == at


def from_bytes(tokens):
    """A token is a byte, so a letter may take several, as in byte-level tokenizers."""
    return bytes(tokens).decode("utf-8", errors="replace")


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    text=st.text(alphabet="abé", max_size=20),
    stops=st.lists(st.text(alphabet="abé", min_size=1, max_size=3), max_size=3),
)
def test_the_count_is_that_of_looking_after_every_token(text, stops):
    tokens = list(text.encode())
    noticed = (
        count
        for count in range(1, len(tokens) + 1)
        if find_stop(from_bytes(tokens[:count]), stops) is not None
    )
    counted = tokens_until_stop(tokens, stops=stops, decode=from_bytes)
    assert counted == next(noticed, None)


def test_a_stop_may_take_several_tokens_and_a_part_of_them():
    pieces = ["Ba", "ts E", "N", "D of", " END"]
    counted = tokens_until_stop(
        range(5),
        stops=("END",),
        decode=lambda ids: "".join(pieces[i] for i in ids),
    )
    assert counted == 4
