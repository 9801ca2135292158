"""The platforms that JAX initialises when a command starts."""

import os
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import jax

# The device files of TPU chips, of older and of newer generations.
CHIPS = ("accel[0-9]*", "vfio/[0-9]*")


def _package_names() -> set[str]:
    return {package.name.lower() for package in metadata.distributions()}


def skip_absent_tpus(
    *,
    devices: Path = Path("/dev"),
    installed: Callable[[], set[str]] = _package_names,
) -> None:
    """Lets JAX use the CPU only, where libtpu is installed and there is no TPU chip.

    JAX would otherwise warn about the missing chip at every start. It changes nothing
    if JAX_PLATFORMS is set, or if a plugin for another accelerator is installed.

    Args:
      devices: the folder of the system's device files.
      installed: returns the names of the installed packages.
    """
    if "JAX_PLATFORMS" in os.environ or find_spec("libtpu") is None:
        return
    has_chip = any(any(devices.glob(pattern)) for pattern in CHIPS)
    if has_chip or any("plugin" in name for name in installed() if "jax" in name):
        return
    jax.config.update("jax_platforms", "cpu")
