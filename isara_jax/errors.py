"""The two ways in which a run stops that are not a bug.

Both carry one sentence for the user. `main` and the tools turn an `InputError` into
exit code 2 and an `EnvironmentFailure` into exit code 1.
"""

AGAIN = "put that right and run the same command again"
GO_ON = f"{AGAIN}, which goes on from what is written"


class InputError(ValueError):
    """What the user gave breaks a rule; the text names file, line, field and value."""


class EnvironmentFailure(RuntimeError):
    """The machine, not the input, stopped the run; the text says how to go on."""
