"""Sections of settings: frozen dataclasses, and an absl flag for each field.

`config` composes those of a run, a tool its own. A field whose metadata says
`operational` changes no result. The flags belong to the module that asks for them, and
stand in its `--help`.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from absl import flags

from isara_jax.errors import InputError

flags.disclaim_key_flags()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section's dataclass, the prefix of its flags, and defaults that differ."""

    kind: type
    prefix: str
    defaults: dict[str, Any]


Sections = Mapping[str, Section]


def define_sections(
    sections: Sections, flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines a flag for every field of the sections, which may be a tool's own."""
    for section in sections.values():
        kinds = get_type_hints(section.kind)
        for one in fields(section.kind):
            name = section.prefix + one.name
            default = section.defaults.get(one.name, one.default)
            if default is MISSING:
                raise ValueError(f"the field {name} has no default")
            _define(name, kinds[one.name], default, one.metadata["help"], flag_values)


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
        if one.metadata.get("operational", False) == operational
    ]


def result_values(sections: Sections, flag_values: flags.FlagValues) -> dict[str, Any]:
    """Returns the value of every flag of the sections that changes results."""
    names = section_flags(sections, operational=False)
    return {name: flag_values[name].value for name in names}


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
        raise InputError(_with_prefix(str(error), section)) from None


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


def _with_prefix(message: str, section: Section) -> str:
    return message if message.startswith("--") else f"--{section.prefix}{message}"
