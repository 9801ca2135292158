"""Folders that are whole or absent."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_dir(folder: Path) -> Iterator[Path]:
    """Gives a hidden neighbour to fill, which becomes the folder when it is whole.

    What was in the folder's place stays there until then. Of what fails nothing is
    left; of what is killed, the hidden neighbour, until the next attempt.

    Raises:
      OSError: the disk does not take it; the error names the folder, if not a file.
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
