"""What an error says of a field, and the first line of what another one says."""

import pytest

from isara_jax.errors import FieldError, InputError, first_line


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1, "seed=-1: must be >= 0"),
        ("", "seed: must be >= 0"),
        (None, "seed: must be >= 0"),
    ],
)
def test_a_field_error_names_field_value_and_rule(value, text):
    error = FieldError("seed", value, "must be >= 0")
    assert isinstance(error, InputError) and str(error) == text
    assert (error.field, error.value, error.rule) == ("seed", value, "must be >= 0")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("\n no such file.\nat all\n"), "no such file."),
        (ValueError(), "ValueError"),
        (KeyError(" "), "' '"),
    ],
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line
