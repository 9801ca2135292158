"""The handoff as WORKSPACE.md shows it: a program that has Orbax and JAX only."""

import json
import os
import subprocess
import sys
from pathlib import Path

RESTORE = """\
import json, pathlib, sys
import jax, orbax.checkpoint as ocp

folder = pathlib.Path(sys.argv[1]).absolute()
config = json.loads((folder / "config.json").read_text())
place = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # or any other
with ocp.StandardCheckpointer() as checkpointer:
    stored = checkpointer.metadata(folder / "orbax").item_metadata.tree
    target = {name: jax.ShapeDtypeStruct(tensor.shape, tensor.dtype, sharding=place)
              for name, tensor in stored.items()}
    tensors = checkpointer.restore(folder / "orbax", target)
"""
TELL = """
import hashlib
import numpy
foreign = [name for name in sys.modules if name.startswith(("isara_jax", "torch"))]
told = {name: [str(value.dtype), list(value.shape),
               hashlib.sha256(numpy.asarray(value).tobytes()).hexdigest()]
        for name, value in tensors.items()}
print(json.dumps([told, config["model_type"], foreign]))
"""


def restored(folder: Path) -> dict[str, list]:
    """Returns dtype, shape and hash of every tensor that the program restores."""
    ran = subprocess.run(
        [sys.executable, "-c", RESTORE + TELL, folder],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,  # where no isara_jax lies
        env=os.environ | {"XLA_FLAGS": ""},
    )
    if ran.returncode:
        raise AssertionError(ran.stderr)
    told, _, foreign = json.loads(ran.stdout.splitlines()[-1])
    if foreign:
        raise AssertionError(f"it imported {foreign}")
    return told
