"""Which of JAX's platforms are looked for when a command starts."""

import os
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import jax

# Where Linux shows the chips of a TPU, of its older and its newer generations.
CHIPS = ("accel[0-9]*", "vfio/[0-9]*")


def _names_of_packages() -> set[str]:
    return {package.name.lower() for package in metadata.distributions()}


def look_for_present_ones(
    *,
    devices: Path = Path("/dev"),
    installed: Callable[[], set[str]] = _names_of_packages,
) -> None:
    """Leaves out TPUs where their library is installed to compile for them only.

    It would complain about the lack of a chip at the start of every command. What
    JAX_PLATFORMS says holds, and so does what JAX chooses where it may find a GPU.
    """
    if "JAX_PLATFORMS" in os.environ or find_spec("libtpu") is None:
        return
    has_chip = any(any(devices.glob(pattern)) for pattern in CHIPS)
    if has_chip or any("plugin" in name for name in installed() if "jax" in name):
        return
    jax.config.update("jax_platforms", "cpu")
