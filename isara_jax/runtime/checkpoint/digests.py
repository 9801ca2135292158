"""Digests of a checkpoint's files: Orbax notices a cut file, not one byte of another.

Its index has checksums of its own, the arrays' bytes have none.
"""

import hashlib
import json
from pathlib import Path

from isara_jax.errors import InputError

DIGESTS = "digests.json"
# Orbax writes the time into it last of all; nothing is read from it.
_NOTED_LATER = {"_CHECKPOINT_METADATA", DIGESTS}


def write_digests(folder: Path) -> None:
    """Notes the SHA-256 of every file, in the last file that is written.

    Raises:
      OSError: the disk does not take it.
    """
    digests = {name: _digest(folder / name) for name in _files(folder)}
    (folder / DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def validate_digests(folder: Path) -> None:
    """Compares every file with its digest, where there are digests.

    Raises:
      InputError: a file is missing or is not what was written.
    """
    if not (folder / DIGESTS).exists():
        return
    there = _files(folder)
    for name, digest in _noted(folder).items():
        if name not in there:
            raise InputError(f"{folder}: a damaged checkpoint ({name} is missing)")
        if _digest(folder / name) != digest:
            raise InputError(
                f"{folder}: a damaged checkpoint ({name} is not what was written)"
            )


def _noted(folder: Path) -> dict[str, str]:
    try:
        noted = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
    except ValueError:
        noted = None
    if not isinstance(noted, dict):
        raise InputError(f"{folder}: a damaged checkpoint ({DIGESTS} is no JSON of it)")
    return noted


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in _NOTED_LATER
    )


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
