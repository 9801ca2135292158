"""Modules of the checkout, run as processes of their own."""

import os
import subprocess
import sys

from python_source import ROOT


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
