"""What holds for every test: the devices, no network, and types that are checked.

JAX reads its environment when it is imported, so this file sets it first.
"""

import os
import sys
import tempfile
from collections.abc import Iterator

if "jax" in sys.modules:
    raise RuntimeError(
        "JAX was imported before tests/conftest.py could set its environment"
    )

COMPILATION_CACHE = tempfile.TemporaryDirectory(prefix="isara_jax_tests_")

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    ).strip(),
    # XLA sizes its pool by the cores; 8 devices waiting for each other on 2 deadlock.
    "NPROC": "16",
    # New for every run of pytest, so that nothing hides behind an older compilation;
    # the processes that tests start share it.
    "JAX_COMPILATION_CACHE_DIR": COMPILATION_CACHE.name,
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}

import jaxtyping  # noqa: E402 - after the environment
import pytest  # noqa: E402 - after the environment

jaxtyping.install_import_hook("isara_jax", "checked_types.checked")


@pytest.fixture(scope="session", autouse=True)
def _remove_compilation_cache() -> Iterator[None]:
    yield
    COMPILATION_CACHE.cleanup()


@pytest.fixture
def shapes_for_arrays() -> Iterator[None]:
    """Lets the engine's dataclasses hold shapes, which the checker knows no type of."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
