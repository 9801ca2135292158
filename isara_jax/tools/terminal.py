"""A model's text on a terminal: escaped, wrapped, in one or two columns.

What a model writes may hold the characters that move the cursor, change colours or
title, or turn the direction of writing; a terminal must get them as visible escapes.
"""

import unicodedata
from itertools import zip_longest

COLUMN_GAP = " | "
NARROWEST_COLUMN = 36
# Control, format (direction marks among them), surrogates, private use, unassigned,
# and the separators of lines and paragraphs.
UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Joiners, which emoji and many scripts are written with.
JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """Writes every character that could steer a terminal as its escape.

    Line feeds stay, and tabs turn into spaces.
    """
    return "".join(map(_printable, text)).expandtabs(4)


def in_columns(left: str, right: str, *, width: int) -> str:
    """Sets two texts beside each other, `width` cells wide in all."""
    column = (width - len(COLUMN_GAP)) // 2
    rows = zip_longest(wrapped(left, column), wrapped(right, column), fillvalue="")
    return "\n".join(
        f"{first}{' ' * (column - cells(first))}{COLUMN_GAP}{second}".rstrip()
        for first, second in rows
    )


def has_room_for_columns(width: int) -> bool:
    """Tells whether two columns of a readable width fit."""
    return width >= 2 * NARROWEST_COLUMN + len(COLUMN_GAP)


def wrapped(text: str, width: int) -> list[str]:
    """Breaks the lines between words, or inside a word that is wider than a line."""
    return [
        row for line in printable(text).split("\n") for row in _wrap_line(line, width)
    ]


def cells(text: str) -> int:
    """Counts the terminal's cells: two for an ideograph, none for an accent."""
    return sum(map(_cells, text))


def _wrap_line(line: str, width: int) -> list[str]:
    first, *words = line.split(" ")
    lines = _split_word(first, width)
    for word in words:
        longer = f"{lines[-1]} {word}"
        if cells(longer) <= width:
            lines[-1] = longer
        else:
            lines += _split_word(word, width)
    return lines


def _split_word(word: str, width: int) -> list[str]:
    pieces = [""]
    for character in word:
        if cells(pieces[-1] + character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _printable(character: str) -> str:
    if character in ("\n", "\t", *JOINERS):
        return character
    if unicodedata.category(character) in UNSAFE:
        return character.encode("unicode_escape").decode("ascii")
    return character
