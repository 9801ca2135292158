"""The program that docs/orbax_handoff.md shows: it has Orbax and JAX only."""

import json
import os
import subprocess
import sys
from pathlib import Path

from python_source import ROOT

EXAMPLE = '"runs/NAME/model"'


def documented_program() -> str:
    """Returns the program of docs/orbax_handoff.md, with a folder as its argument."""
    lines = (ROOT / "docs" / "orbax_handoff.md").read_text("utf-8").splitlines()
    program = "\n".join(line[4:] for line in lines if line.startswith("    "))
    if program.count(EXAMPLE) != 1:
        raise AssertionError(f"the program opens {EXAMPLE} once, not so:\n{program}")
    return f"import sys\n{program.replace(EXAMPLE, 'sys.argv[1]')}\n"


PRINT = """
import hashlib
import numpy
foreign = [name for name in sys.modules if name.startswith(("isara_jax", "torch"))]
seen = {name: [str(value.dtype), list(value.shape),
               hashlib.sha256(numpy.asarray(value).tobytes()).hexdigest()]
        for name, value in tensors.items()}
print(json.dumps([seen, config["model_type"], foreign]))
"""


def restored(folder: Path) -> dict[str, list]:
    """Returns dtype, shape and hash of every tensor that the program restores."""
    ran = subprocess.run(
        [sys.executable, "-c", documented_program() + PRINT, folder],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,  # where no isara_jax lies
        env=os.environ | {"XLA_FLAGS": ""},
    )
    if ran.returncode:
        raise AssertionError(ran.stderr)
    seen, _, foreign = json.loads(ran.stdout.splitlines()[-1])
    if foreign:
        raise AssertionError(f"it imported {foreign}")
    return seen
