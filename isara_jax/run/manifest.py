"""A run's provenance beside its flags: hashes of its inputs, versions, the host."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from isara_jax.runtime import ORBAX

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "scann",
    "datasets",
    "numpy",
)
WEIGHTS = (".safetensors", ".gguf")
# Bytes of a file's beginning and of its end that are hashed, with its size. So the
# files of a model of 100 GB are hashed in a moment.
SAMPLE = 2**20


def provenance(hashes: Mapping[str, str]) -> dict[str, Any]:
    """Returns hashes of the inputs, versions, code and host for manifest.json."""
    return {
        "hashes": dict(hashes),
        "versions": versions(),
        "code": hash_code(),
        "host": host(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def hash_inputs(
    *,
    model: Path,
    encoder: Path,
    seeds: Path,
    heldout: Path | None,
    adapter: Path | None = None,
) -> dict[str, str]:
    """Returns the hash of each input of a run, by its name."""
    hashes = {
        "model": hash_weights(model),
        "encoder": hash_weights(encoder),
        "seeds": hash_bytes(seeds.read_bytes()),
    }
    if heldout is not None:
        hashes["heldout"] = hash_bytes(heldout.read_bytes())
    if adapter is not None:
        hashes["adapter"] = hash_weights(adapter)
    return hashes


def versions() -> dict[str, str]:
    """Returns the installed version of every package that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def host() -> dict[str, Any]:
    """Returns the system, the cores and the devices of the machine."""
    devices = jax.devices()
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "devices": len(devices),
        "device": devices[0].device_kind,
        "backend": jax.default_backend(),
    }


def hash_weights(source: Path) -> str:
    """Hashes a file of weights, or a folder's weights and JSON files."""
    if source.is_file():
        return hash_bytes(_beginning_and_end(source))
    files = [
        path
        for path in sorted(source.iterdir())
        if path.suffix in (*WEIGHTS, ".json") and path.is_file()
    ]
    files += sorted(path for path in (source / ORBAX).rglob("*") if path.is_file())
    return hash_bytes(
        b"".join(path.name.encode() + _beginning_and_end(path) for path in files)
    )


def hash_tensors(tensors: Iterable[tuple[str, np.ndarray]]) -> str:
    """Hashes named tensors in memory, all of their bytes."""
    digest = hashlib.sha256()
    for name, value in tensors:
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]


def hash_code() -> str:
    """Hashes the package's own source."""
    root = Path(__file__).parent.parent
    files = sorted(root.rglob("*.py"))
    return hash_bytes(
        b"".join(
            path.relative_to(root).as_posix().encode() + path.read_bytes()
            for path in files
        )
    )


def hash_bytes(content: bytes) -> str:
    """Returns the first 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def _beginning_and_end(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(SAMPLE)
        file.seek(max(0, size - SAMPLE))
        return str(size).encode() + beginning + file.read()
