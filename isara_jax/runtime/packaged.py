"""The files of `configs/`, from wherever the package was installed.

A clone holds `configs/` at its top, a wheel inside the package (setup.py maps it
there). So `configs/quickstart.flags`, and the data that it names, are found in an empty
folder as well.
"""

import importlib.util
from pathlib import Path

_FOLDER = "configs"


def locate_packaged(path: str | Path) -> Path:
    """Returns the path, or the package's own file of that name in `configs/`.

    A file on the disk comes first. A path that is neither is returned as it is, for the
    reader to refuse.
    """
    given = Path(path)
    if given.exists() or given.parts[:1] != (_FOLDER,):
        return given
    spec = importlib.util.find_spec(f"isara_jax.{_FOLDER}")
    folders = spec.submodule_search_locations if spec else None
    found = [Path(folder, *given.parts[1:]) for folder in folders or ()]
    return next((path for path in found if path.exists()), given)
