"""Below the commands no text writes a setting as a flag: only they know the flags."""

import ast
import re

import pytest
from python_source import Source, read_sources

from isara_jax import config
from isara_jax.cli.flags import section_flags
from isara_jax.tools import chat, convert, fit, generate

# Their texts are read by one who has typed flags.
COMMANDS = ("cli", "config", "console", "main", "tools")
FLAGS = {
    name
    for sections in (
        config.SECTIONS,
        chat.SECTIONS,
        convert.SECTIONS,
        fit.DEFINED,
        generate.SECTIONS,
    )
    for operational in (False, True)
    for name in section_flags(sections, operational=operational)
}
FLAG = re.compile(r"(?<![\w-])(?<!var\()--(\w+)")
SOURCES = {
    name: source
    for name, source in read_sources().items()
    if name.partition(".")[0] not in COMMANDS
}


def flags_in(source):
    """Returns the flags in a file's strings: messages, help texts and docstrings."""
    return [
        f"line {node.lineno}: --{name}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for name in FLAG.findall(node.value)
        if name in FLAGS
    ]


@pytest.mark.parametrize("name", SOURCES)
def test_a_setting_is_named_as_a_field(name):
    assert flags_in(SOURCES[name]) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('raise InputError(f"--seed={seed}: odd")', 1),
        ('help = "more than --train_batch or (--seed)"', 2),
        ('"""Reads what --workdir names."""', 1),
        ('raise FieldError("seed", seed, "is odd")', 0),
        ('run = "pip install --no-deps x; var(--other); a--seed"', 0),
    ],
)
def test_a_flag_is_found(text, found):
    assert len(flags_in(Source(name="models.x", text=text))) == found
