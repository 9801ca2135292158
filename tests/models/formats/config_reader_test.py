from pathlib import Path

import pytest

from isara_jax.errors import InputError
from isara_jax.models.formats.config_reader import ConfigReader


def attributes(**values):
    return ConfigReader(path=Path("f/config.json"), values=values)


def test_values_are_read():
    a = attributes(heads=3, base=2, epsilon=1e-5, tied=True, absent=None, scaling=None)
    assert a.positive_int("heads") == 3
    assert a.positive_float("base") == 2.0 and isinstance(
        a.positive_float("base"), float
    )
    assert a.positive_float("epsilon") == 1e-5
    assert a.boolean("tied", default=False) is True
    a.require("heads", 3)
    a.require("scaling", None)
    a.validate_known({"heads", "base", "epsilon", "tied", "absent", "scaling"})


def test_what_is_absent_or_null_has_its_default():
    a = attributes(null=None)
    for name in ("null", "missing"):
        assert a.positive_int(name, default=4) == 4
        assert a.positive_float(name, default=0.5) == 0.5
        assert a.boolean(name, default=True) is True


def test_one_of_the_words():
    words = {"relu": 0, "gelu": 1}
    assert (
        attributes(act="gelu").one_of("act", ("relu", "gelu"), default="relu") == "gelu"
    )
    assert attributes(act=None).one_of("act", ("relu",), default="relu") == "relu"
    for value in ("tanh", 3, ["relu"], {}):
        with pytest.raises(InputError, match=r"act=.*, expected one of relu, gelu"):
            attributes(act=value).one_of("act", words, default="relu")


def test_a_whole_number_or_none():
    assert attributes(window=3).optional_positive_int("window") == 3
    assert attributes(window=None).optional_positive_int("window") is None
    assert attributes().optional_positive_int("window") is None
    with pytest.raises(InputError, match="window=0, expected a whole number"):
        attributes(window=0).optional_positive_int("window")


@pytest.mark.parametrize("value", ["3", 3.0, 0, -1, True, [3], 2**31, 10**30, None])
def test_no_whole_number(value):
    with pytest.raises(InputError, match=r"f/config\.json: heads=.*, expected a whole"):
        attributes(heads=value).positive_int("heads")


@pytest.mark.parametrize(
    "value", ["1e-5", 0, -1e-5, float("inf"), float("nan"), False, {}, None]
)
def test_no_number(value):
    with pytest.raises(InputError, match=r"epsilon=.*, expected a number above 0"):
        attributes(epsilon=value).positive_float("epsilon")


@pytest.mark.parametrize("value", ["false", 0, 1])
def test_no_flag(value):
    with pytest.raises(InputError, match=r"tied=.*, expected true or false"):
        attributes(tied=value).boolean("tied", default=False)


def test_another_value_than_the_one_required():
    with pytest.raises(InputError, match="act='gelu', expected 'silu'"):
        attributes(act="gelu").require("act", "silu")
    with pytest.raises(InputError, match="act=None, expected 'silu'"):
        attributes().require("act", "silu")


def test_unknown_attribute():
    with pytest.raises(InputError, match="extra=7, an attribute that is unknown"):
        attributes(heads=3, extra=7).validate_known({"heads"})
