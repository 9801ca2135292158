"""Nothing that a model writes steers the terminal, and columns stand straight."""

import unicodedata

import pytest
from hypothesis import given, strategies as st

from isara_jax.tools.terminal import (
    cells,
    has_room_for_columns,
    in_columns,
    printable,
    wrapped,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ntext", "plain\ntext"),
        ("a\tb", "a   b"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("over\rwritten\x08", r"over\rwritten\x08"),
        ("\x9b31m\x85\x7f", r"\x9b31m\x85\x7f"),
        ("\u202eback\u2066 \u200f", r"\u202eback\u2066 \u200f"),
        ("\u2028\u2029\ud800\ue000", r"\u2028\u2029\ud800\ue000"),
        ("\U000e0041", r"\U000e0041"),
        ("café 日本 \u00a0 👩\u200d🔬", "café 日本 \u00a0 👩\u200d🔬"),
    ],
)
def test_what_is_shown(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_no_control_character_gets_through(text):
    shown = printable(text)
    kinds = {unicodedata.category(c) for c in shown if c not in "\n\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one two three", ["one two", "three"]),
        ("one twofold", ["one", "twofold"]),
        ("abcdefghij", ["abcdefgh", "ij"]),
        ("a abcdefghij b", ["a", "abcdefgh", "ij b"]),
        ("  in dented", ["  in", "dented"]),
        ("a\n\nb", ["a", "", "b"]),
        ("日本語日本", ["日本語日", "本"]),
        ("12345678", ["12345678"]),
        ("e\u0301" * 9, ["e\u0301" * 8, "e\u0301"]),
        ("\x1b[0m 12", [r"\x1b[0m", "12"]),
    ],
)
def test_lines_break_at_eight_cells(text, lines):
    assert wrapped(text, 8) == lines


@given(st.text(), st.integers(2, 12))
def test_a_line_is_never_too_wide_and_nothing_is_lost(text, width):
    lines = wrapped(text, width)
    assert all(cells(line) <= width for line in lines)
    unspaced = str.maketrans("", "", " \n")
    joined = "".join(lines).translate(unspaced)
    assert joined == printable(text).translate(unspaced)


def test_columns_stand_straight():
    shown = in_columns("[A]\nfar away 日本", "[B]\none\ntwo three\nfour", width=23)
    assert shown.split("\n") == [
        "[A]        | [B]",
        "far away   | one",
        "日本       | two three",
        "           | four",
    ]


def test_columns_need_room():
    assert has_room_for_columns(80) and not has_room_for_columns(60)
