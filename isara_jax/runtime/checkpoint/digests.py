"""SHA-256 digests of a checkpoint's files.

Orbax detects a truncated file, but not a changed byte: its index has checksums, the
arrays' bytes have none.
"""

import hashlib
import json
from pathlib import Path

from isara_jax.errors import InputError

DIGESTS = "digests.json"
# Orbax writes the time into its file after the digests; nothing is read from it.
_WITHOUT_DIGEST = {"_CHECKPOINT_METADATA", DIGESTS}


def write_digests(folder: Path) -> None:
    """Writes the digests of all files, as the last file of the checkpoint.

    Raises:
      OSError: the disk does not take it.
    """
    digests = {name: _digest(folder / name) for name in _files(folder)}
    (folder / DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def validate_digests(folder: Path) -> None:
    """Compares every file with its digest, if the checkpoint has digests.

    Raises:
      InputError: a file is missing or is not what was written.
    """
    if not (folder / DIGESTS).exists():
        return
    present = _files(folder)
    for name, digest in _read_digests(folder).items():
        if name not in present:
            raise InputError(f"{folder}: a damaged checkpoint ({name} is missing)")
        if _digest(folder / name) != digest:
            raise InputError(
                f"{folder}: a damaged checkpoint ({name} is not what was written)"
            )


def _read_digests(folder: Path) -> dict[str, str]:
    try:
        digests = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
    except ValueError:
        digests = None
    if not isinstance(digests, dict):
        raise InputError(f"{folder}: a damaged checkpoint ({DIGESTS} is no JSON of it)")
    return digests


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in _WITHOUT_DIGEST
    )


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
