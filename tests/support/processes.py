"""Modules of the checkout, run as processes of their own."""

import os
import subprocess
import sys

from python_source import ROOT

# What a program is compiled to matters little where it runs for milliseconds.
QUICKLY_COMPILED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run_module(name, *arguments, **environment):
    """Runs the module to its end; the environment is ours but for what is given."""
    return subprocess.run(
        [sys.executable, "-m", name, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
