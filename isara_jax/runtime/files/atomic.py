"""Folders that are complete or absent."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_dir(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder to fill, which replaces `folder` at the end.

    A folder that exists stays until then. A failure leaves nothing behind. A killed
    process leaves the hidden folder, which the next attempt removes.

    Raises:
      OSError: a write failed; the error names a file, or else the folder.
    """
    partial, old = (folder.with_name(f".{folder.name}.{w}") for w in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
