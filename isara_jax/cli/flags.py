"""Sections of settings: frozen dataclasses, and an absl flag for each field.

`config` composes the sections of a run, a tool composes its own. The flags belong to
the module that defines them, and appear in its `--help`.

Help texts and errors below this folder name fields, and write other fields than their
own in backticks. Only here do they become flags, with the prefix of their section.
"""

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from absl import flags

from isara_jax.errors import FieldError, InputError

flags.disclaim_key_flags()

_QUOTED_FIELD = re.compile(r"`(\w+)`")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A settings dataclass, and how its fields become flags.

    `prefix` stands before each flag's name, and `defaults` replace those of the fields.
    A field that is `operational`, here or by its metadata, changes no result.
    """

    kind: type
    prefix: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    operational: tuple[str, ...] = ()

    def is_operational(self, one: Field[Any]) -> bool:
        """Tells whether a field changes no result."""
        return one.name in self.operational or one.metadata.get("operational", False)


Sections = Mapping[str, Section]


def define_sections(
    sections: Sections, flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines a flag for every field of the sections."""
    known = {
        section.prefix + one.name
        for section in sections.values()
        for one in fields(section.kind)
    }
    for section in sections.values():
        kinds = get_type_hints(section.kind)
        for one in fields(section.kind):
            name = section.prefix + one.name
            default = section.defaults.get(one.name, one.default)
            if default is MISSING:
                raise ValueError(f"the field {name} has no default")
            help = _in_flags(one.metadata["help"], known, prefix=section.prefix)
            _define(name, kinds[one.name], default, help, flag_values)


def sections_from_flags(
    sections: Sections, flag_values: flags.FlagValues = flags.FLAGS
) -> dict[str, Any]:
    """Builds each section from parsed flags, under its name.

    Raises:
      InputError: a value breaks a rule of its section.
    """
    return {
        name: _from_flags(section, flag_values) for name, section in sections.items()
    }


def section_flags(sections: Sections, *, operational: bool) -> list[str]:
    """Lists the sections' flags that change results, or those that do not."""
    return [
        section.prefix + one.name
        for section in sections.values()
        for one in fields(section.kind)
        if section.is_operational(one) == operational
    ]


def result_values(sections: Sections, flag_values: flags.FlagValues) -> dict[str, Any]:
    """Returns the value of every flag of the sections that changes results."""
    names = section_flags(sections, operational=False)
    return {name: flag_values[name].value for name in names}


def section_values(sections: Sections, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the same of sections that are built, by their names, without flags."""
    return {
        section.prefix + one.name: getattr(values[name], one.name)
        for name, section in sections.items()
        for one in fields(section.kind)
        if not section.is_operational(one)
    }


def user_sentence(
    error: InputError, flag_values: flags.FlagValues = flags.FLAGS, *, prefix: str = ""
) -> str:
    """Writes an error for the user of a command: its fields as flags of the command."""
    if not isinstance(error, FieldError):
        return str(error)
    text = str(error).removeprefix(error.field)
    return _in_flags(f"`{error.field}`{text}", set(flag_values), prefix=prefix)


def _in_flags(text: str, known: Container[str], *, prefix: str) -> str:
    """Writes each field in backticks as its flag, or bare where there is no flag."""

    def flag(match: re.Match[str]) -> str:
        for name in (prefix + match[1], match[1]):
            if name in known:
                return f"--{name}"
        return match[1]

    return _QUOTED_FIELD.sub(flag, text)


def _from_flags(section: Section, flag_values: flags.FlagValues) -> Any:
    values = {
        one.name: flag_values[section.prefix + one.name].value
        for one in fields(section.kind)
    }
    frozen = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
    }
    try:
        return section.kind(**frozen)
    except InputError as error:
        sentence = user_sentence(error, flag_values, prefix=section.prefix)
        raise InputError(sentence) from None


def _define(
    name: str, kind: Any, default: Any, help: str, flag_values: flags.FlagValues
) -> None:
    if get_origin(kind) is Literal:
        choices = list(get_args(kind))
        flags.DEFINE_enum(name, default, choices, help, flag_values=flag_values)
        return
    defining: dict[Any, Callable[..., Any]] = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple[str, ...]: flags.DEFINE_multi_string,
    }
    defining[kind](name, default, help, flag_values=flag_values)
