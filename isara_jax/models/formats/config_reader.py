"""Reads the attributes of a model's configuration, each with its type and bounds."""

import math
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara_jax.errors import InputError
from isara_jax.runtime.files import read_json


@dataclass(frozen=True, kw_only=True)
class ConfigReader:
    """The attributes of a file; an error names the file, the attribute and its value.

    An attribute that is null counts as absent.
    """

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def from_json(cls, path: Path) -> "ConfigReader":
        """Reads a file that holds a JSON object.

        Raises:
          InputError: it is missing, is damaged, or holds something else.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        values = read_json(path)
        if not isinstance(values, dict):
            raise InputError(f"{path}: expected a JSON object")
        return cls(path=path, values=values)

    def positive_int(self, name: str, *, default: int | None = None) -> int:
        """Returns a whole number from 1 to 2^31 - 1.

        Raises:
          InputError: it is none, or absent without a default.
        """
        value = self._value(name, default)
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        # No size of a model is near to 2^31, and the product of two must stay a size.
        if not is_whole or not 0 < value < 2**31:
            raise self.error(name, value, "expected a whole number above 0")
        return value

    def optional_positive_int(self, name: str) -> int | None:
        """Returns a whole number from 1 to 2^31 - 1, or None where it is absent.

        Raises:
          InputError: it is something else.
        """
        return None if self.values.get(name) is None else self.positive_int(name)

    def positive_float(self, name: str, *, default: float | None = None) -> float:
        """Returns a finite number above 0.

        Raises:
          InputError: it is none, or absent without a default.
        """
        value = self._value(name, default)
        is_real = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_real or not 0 < value < math.inf:
            raise self.error(name, value, "expected a number above 0")
        return float(value)

    def boolean(self, name: str, *, default: bool) -> bool:
        """Returns true or false.

        Raises:
          InputError: it is neither.
        """
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.error(name, value, "expected true or false")
        return value

    def one_of(self, name: str, choices: Collection[str], *, default: str) -> str:
        """Returns one of the choices.

        Raises:
          InputError: it is another one.
        """
        value: str = self._value(name, default)
        if not isinstance(value, str) or value not in choices:
            raise self.error(name, value, f"expected one of {', '.join(choices)}")
        return value

    def require(self, name: str, expected: object) -> None:
        """Checks that an attribute has the one value that is implemented.

        Raises:
          InputError: it is another one.
        """
        value = self.values.get(name)
        if value != expected:
            raise self.error(name, value, f"expected {expected!r}")

    def validate_known(self, known: Container[str]) -> None:
        """Checks that every attribute is known.

        Raises:
          InputError: one is not.
        """
        for name, value in self.values.items():
            if name not in known:
                raise self.error(name, value, "an attribute that is unknown here")

    def error(self, name: str, value: object, rule: str) -> InputError:
        """Returns the error that says where an attribute breaks which rule."""
        return InputError(f"{self.path}: {name}={value!r}, {rule}")

    def _value(self, name: str, default: object) -> Any:
        value = self.values.get(name)
        return default if value is None else value
