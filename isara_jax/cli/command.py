"""What every command has in common: how its flags are read, and how it ends."""

import shlex
import sys
from collections.abc import Callable, Sequence

import jax
from absl import app, flags, logging

from isara_jax.cli.flags import user_sentence
from isara_jax.errors import GO_ON, EnvironmentFailure, InputError, first_line
from isara_jax.runtime import StopRequested, locate_packaged
from isara_jax.runtime.hardware import skip_absent_tpus

_FLAGFILE = ("--flagfile", "-flagfile")


def start(work: Callable[[], None], *, module: str, to_save_memory: str) -> None:
    """Runs `python -m MODULE`: parses the flags, works, and exits with the code.

    `to_save_memory` names the flags to lower where the device is too small.
    """

    def main(arguments: Sequence[str]) -> int:
        return exit_code(
            arguments, work=work, module=module, to_save_memory=to_save_memory
        )

    app.run(main, flags_parser=parse)


def parse(arguments: Sequence[str]) -> list[str]:
    """Parses the flags; a wrong one ends in a sentence and exit code 2."""
    skip_absent_tpus()
    try:
        remaining: list[str] = flags.FLAGS(with_flagfiles_located(arguments))
    except flags.Error as error:
        sys.exit(_stop(str(error), code=2))
    if flags.FLAGS["verbosity"].using_default_value:
        # app.run would choose INFO, at which libraries log every step.
        logging.set_verbosity(logging.WARNING)
    return remaining


def with_flagfiles_located(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments, each flagfile as a path of this machine."""
    located = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, given, path = argument.partition("=")
        if given and flag in _FLAGFILE:
            located.append(f"{flag}={locate_packaged(path)}")
        elif before in _FLAGFILE:
            located.append(str(locate_packaged(argument)))
        else:
            located.append(argument)
    return located


def exit_code(
    arguments: Sequence[str],
    *,
    work: Callable[[], None],
    module: str,
    to_save_memory: str,
) -> int:
    """Works and returns the exit code: 2 for a wrong input, 1 for a failing machine."""
    try:
        if len(arguments) > 1:
            raise InputError(f"{arguments[1]}: not understood, all input is a --flag")
        work()
    except InputError as error:
        return _stop(user_sentence(error), code=2)
    except StopRequested:
        again = shlex.join([sys.executable, "-m", module, *sys.argv[1:]])
        return _stop(f"Stopped; all work so far is kept. To go on: {again}", code=1)
    except (EnvironmentFailure, FloatingPointError) as error:
        return _stop(str(error), code=1)
    except OSError as error:
        return _stop(f"{error}: {GO_ON}", code=1)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _stop(
            f"The device is out of memory; lower {to_save_memory} "
            f"({first_line(error)})",
            code=1,
        )
    return 0


def _stop(sentence: str, *, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code
