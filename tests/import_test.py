"""`import isara_jax`: quick, without JAX, and every name is what it says."""

import subprocess
import sys
import types

import pytest
from python_source import ROOT

import isara_jax as isara

MOST_SECONDS = 0.3


def run_python(*arguments):
    found = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found


def test_importing_takes_little_time_and_starts_no_jax():
    heavy = "{'jax', 'jaxlib', 'flax', 'numpy', 'transformers', 'absl'}"
    found = run_python(
        *("-X", "importtime"),
        *("-c", f"import sys, isara_jax; print({heavy} & set(sys.modules))"),
    )
    assert found.stdout == "set()\n"
    (line,) = (x for x in found.stderr.splitlines() if x.endswith("| isara_jax"))
    microseconds = int(line.split("|")[1])
    assert microseconds < MOST_SECONDS * 1e6


@pytest.mark.parametrize("name", isara.__all__)
def test_every_name_is_there_and_documented(name):
    value = getattr(isara, name)
    assert not isinstance(value, types.ModuleType)
    assert value.__doc__


def test_a_function_is_not_hidden_by_the_module_of_its_name():
    code = (
        "import isara_jax, isara_jax.align, isara_jax.finetune, types\n"
        "from isara_jax.align import LoopConfig\n"
        "from isara_jax.finetune import FinetuneConfig\n"
        "for name in ('align', 'finetune'):\n"
        "    assert isinstance(getattr(isara_jax, name), types.FunctionType), name\n"
        "from isara_jax import finetune\n"
        "assert finetune.__module__ == 'isara_jax.api.finetuning'\n"
    )
    run_python("-c", code)
