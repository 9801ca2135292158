"""Changes of a model's folder: an attribute of a JSON file, a tensor of the weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def change_json(path: Path, **changes: object) -> None:
    """Sets attributes of a JSON file; Ellipsis takes one away."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    write_json(path, {k: v for k, v in content.items() if v is not ...})


def change_tensors(
    folder: Path, change: Callable[[dict[str, np.ndarray]], object]
) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
