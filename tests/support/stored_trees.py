"""Trees to store, the ways in which a stored one is damaged, and programs that die."""

import asyncio
import shutil
import subprocess
import sys
import threading

import jax
import numpy as np


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def _largest(folder):
    return max(folder.rglob("d/*"), key=lambda file: file.stat().st_size)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(folder):
    """Changes one byte amid the arrays."""
    path = _largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "metadata gone": lambda folder: (folder / "_METADATA").unlink(),
    "metadata cut": lambda folder: _cut(folder / "_METADATA"),
    "metadata noise": lambda folder: (folder / "_METADATA").write_bytes(b"\xff" * 50),
    "manifest gone": lambda folder: (folder / "manifest.ocdbt").unlink(),
    "manifest cut": lambda folder: _cut(folder / "manifest.ocdbt"),
    "data gone": lambda folder: _largest(folder).unlink(),
    "data cut": lambda folder: _cut(_largest(folder)),
    "all data gone": lambda folder: [shutil.rmtree(d) for d in folder.glob("ocdbt.*")],
}


def run(program, path):
    """Runs a program on a path in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program, path],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )


def hold_writes(monkeypatch):
    """Keeps Orbax from writing the arrays that it was given until the event is set."""
    from orbax.checkpoint._src.serialization import serialization

    go_on, write = threading.Event(), serialization.async_serialize_from_host

    async def held(*args, **named):
        await asyncio.to_thread(go_on.wait, timeout=60)
        await write(*args, **named)

    monkeypatch.setattr(serialization, "async_serialize_from_host", held)
    return go_on
