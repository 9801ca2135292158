"""A conversion that is stopped, as a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest
from conversion import contents, convert, write_folder
from safetensors.numpy import load_file
from tiny_run import ROOT

from isara_jax.models.formats.safetensors import write_safetensors
from isara_jax.tools import convert as module


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A model of many tensors, so that a signal meets the conversion at work."""
    folder = tmp_path_factory.mktemp("slow") / "hf"
    write_folder(folder, num_hidden_layers=1)
    layer = {
        name: tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }
    many = dict(layer)
    for number in range(600):
        for name, tensor in layer.items():
            many[name.replace("layers.0.", f"layers.{number}.")] = tensor
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    write_safetensors(folder, many.items())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 600}))
    return folder


@pytest.mark.parametrize(
    ("stop", "to", "left"),
    [
        (signal.SIGINT, "hf", []),
        (signal.SIGTERM, "orbax", []),
        (signal.SIGKILL, "orbax", [".ours.partial"]),
    ],
)
def test_a_stopped_conversion_leaves_no_target(slow, tmp_path, stop, to, left):
    target = tmp_path / "ours"
    with subprocess.Popen(
        [
            *(sys.executable, "-m", module.__name__, f"--source={slow}"),
            *(f"--target={target}", f"--to={to}"),
        ],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        for line in running.stderr:
            if line.startswith("convert: 0 of"):
                break
        running.send_signal(stop)
        told = running.stderr.read()
    assert running.returncode == (-stop if stop == signal.SIGKILL else 1)
    assert contents(tmp_path) == left
    if not left:
        assert told.splitlines()[-1] == f"Stopped; nothing of {target} was written"
        return
    with contextlib.suppress(FileNotFoundError):
        assert "config.json" not in contents(tmp_path / left[0])
    small = slow.parent / "small"
    if not small.exists():
        write_folder(small)
    assert convert(source=small, target=target) == 0
    assert contents(tmp_path) == ["ours"]
