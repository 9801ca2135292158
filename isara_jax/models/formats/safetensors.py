"""Hugging Face's safetensors files, one or many with an index, tensor by tensor."""

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from isara_jax.errors import AGAIN, EnvironmentFailure, InputError
from isara_jax.runtime.files import Tensors, group_by_bytes, read_json, write_json

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 10**9
# Rotary frequencies, which follow from the configuration, and what safe-rlhf's trainer
# keeps to normalise scores, which models that do not normalise carry all the same.
DERIVED_TENSORS = re.compile(r"rotary_emb\.inv_freq$|^normalizer\.(mean|var|count)$")

Readers = dict[str, Callable[[], np.ndarray]]


def tensor_readers(folder: Path) -> Readers:
    """Opens `model.safetensors`, or else the files that the index names, or else all.

    Raises:
      InputError: there is none, a header is damaged, two files hold a tensor of one
        name, or the index names other files or tensors than there are.
    """
    whole, index = folder / WHOLE, folder / INDEX
    if whole.is_file():
        return _readers_of([whole])
    if index.is_file():
        places = _places_of_index(index)
        readers = _readers_of([folder / name for name in sorted({*places.values()})])
        _refuse_other_places(index, places, readers)
        return readers
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise InputError(f"{folder}: no .safetensors file in the folder")
    return _readers_of(found)


def write_safetensors(
    folder: Path, tensors: Tensors, *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes `model.safetensors`, or shards of at most so many bytes and their index.

    One shard at a time is in memory.

    Raises:
      EnvironmentFailure: the disk does not take them.
    """
    shards: list[tuple[Path, list[str]]] = []
    total = 0
    for group in group_by_bytes(tensors, most_bytes=shard_bytes):
        path = folder / f".model-{len(shards) + 1:05d}.safetensors"
        write_file(path, group)
        shards.append((path, list(group)))
        total += sum(tensor.nbytes for tensor in group.values())
    if len(shards) == 1:
        os.replace(shards[0][0], folder / WHOLE)
        return
    weight_map: dict[str, str] = {}
    for number, (path, names) in enumerate(shards, start=1):
        final = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        os.replace(path, folder / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / INDEX, index)


def write_file(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes one file, whole on the disk when this returns.

    Raises:
      EnvironmentFailure: the disk does not take it.
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(path.parent.stat().st_mode & 0o666)  # else its owner alone may read
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except (SafetensorError, OSError) as error:
        raise EnvironmentFailure(
            f"{path.parent}: cannot be written ({error}): {AGAIN}"
        ) from None


def _readers_of(paths: list[Path]) -> Readers:
    readers: Readers = {}
    for path in paths:
        try:
            with safe_open(path, framework="numpy") as file:
                names = list(file.keys())
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path}: not a whole safetensors file ({error})"
            ) from None
        for name in names:
            if name in readers:
                raise InputError(f"{path}: another file holds {name!r} too")
            if not DERIVED_TENSORS.search(name):
                readers[name] = partial(_read, path, name)
    return readers


def _read(path: Path, name: str) -> np.ndarray:
    with safe_open(path, framework="numpy") as file:
        return file.get_tensor(name)


def _places_of_index(index: Path) -> dict[str, str]:
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise InputError(f"{index}: expected a JSON object with a weight_map")
    for name in places.values():
        is_plain = isinstance(name, str) and Path(name).name == name
        if not is_plain or not (index.parent / name).is_file():
            raise InputError(f"{index}: names {name!r}, which is no file of the folder")
    return places


def _refuse_other_places(
    index: Path, places: Mapping[str, str], readers: Readers
) -> None:
    named = {name for name in places if not DERIVED_TENSORS.search(name)}
    for name in sorted(named ^ readers.keys()):
        fault = "is in none of them" if name in named else "is in no entry of it"
        raise InputError(f"{index}: not the index of its files; {name!r} {fault}")
