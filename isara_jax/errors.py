"""The errors that are no bug: what the user gave, or the machine, is at fault.

Each carries one sentence for the user. The commands turn an `InputError` into exit code
2 and an `EnvironmentFailure` into exit code 1.
"""

AGAIN = "put that right and run the same command again"
GO_ON = f"{AGAIN}, which goes on from what is written"


class InputError(ValueError):
    """What the user gave breaks a rule; the text names file, line, field and value."""


class FieldError(InputError):
    """A field's value breaks a rule; the text is `FIELD=VALUE: RULE`.

    The field is named as in its dataclass or signature, other fields in the rule in
    backticks. `isara_jax.cli` writes all of them as the flags that they belong to.
    """

    def __init__(self, field: str, value: object, rule: str):
        """Takes the field's name, its value ("" or None: not given), and the rule."""
        given = field if value in ("", None) else f"{field}={value}"
        super().__init__(f"{given}: {rule}")
        self.field = field
        self.value = value
        self.rule = rule


class EnvironmentFailure(RuntimeError):
    """The machine, not the input, stopped the run; the text says how to go on."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
