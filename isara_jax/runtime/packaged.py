"""The files of `configs/`, from wherever the package was installed.

A wheel holds `configs/` inside the package (setup.py maps it there), a clone beside it.
So `configs/quickstart.flags`, and the data that it names, are found from any folder.
"""

from pathlib import Path

_CONFIGS = "configs"
_PACKAGE = Path(__file__).parent.parent


def locate_packaged(path: str | Path) -> Path:
    """Returns the path, or the package's own file of that name in `configs/`.

    A file on the disk comes first. A path that is neither is returned as it is, for the
    reader to refuse.
    """
    given = Path(path)
    if given.exists() or given.parts[:1] != (_CONFIGS,):
        return given
    installed = [folder / given for folder in (_PACKAGE, _PACKAGE.parent)]
    return next((path for path in installed if path.exists()), given)
