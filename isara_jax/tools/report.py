"""Rebuilds `report.html` and the TensorBoard files from a run's folder.

    python -m isara_jax.tools.report --workdir=runs/NAME

Also works on a run that has not ended. Needs neither its model nor JAX.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from isara_jax.cli import user_sentence
from isara_jax.errors import InputError
from isara_jax.report import summary_table, write_report, write_tensorboard
from isara_jax.run import Workdir

WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder: runs/NAME.", required=True
)


def main(arguments: Sequence[str]) -> int:
    """Writes the report, prints the summary; returns 2 where the input is at fault."""
    try:
        if len(arguments) > 1:
            raise InputError(f"{arguments[1]}: not understood, all input is a --flag")
        workdir = Workdir(Path(WORKDIR.value))
        page = write_report(workdir)
        write_tensorboard(workdir)
    except InputError as error:
        print(user_sentence(error), file=sys.stderr)
        return 2
    print(summary_table(workdir))
    print(f"\n{page}")
    return 0


def run() -> None:
    """Starts the command."""
    app.run(main)


if __name__ == "__main__":
    run()
