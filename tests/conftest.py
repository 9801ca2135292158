"""What holds for every test: the devices, no network, and types that are checked.

JAX reads its environment when it is imported, so this file sets it first.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    # torch's threads spin while they wait for each other, and tests run side by side.
    "OMP_NUM_THREADS": "1",
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files of slow tests, and compiles like ones in turn."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, not _is_optimized(item)))


# A file whose tests look at what another file's prepare.
PREPARED_BY = {"tests/end_to_end/kill_test.py": "tests/end_to_end/align_test.py"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keeps the tests of a file, or of two such, in one process of pytest-xdist."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return PREPARED_BY.get(file, file)

    return ByFile(config, log)


@pytest.fixture(scope="module", autouse=True)
def _as_optimized_as_asked(request: pytest.FixtureRequest) -> None:
    """Compiles in half the time what runs for milliseconds.

    LLVM's optimizations are left out then, XLA's are not. Files whose marker is
    `optimized` are about what they change: bits, speed, models of a real size.
    """
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    wanted = not _is_optimized(request.node)
    if before != wanted:
        jax.clear_caches()  # the setting is no part of their keys
        jax.config.update("jax_disable_most_optimizations", wanted)


# XLA maps about seven regions of memory for a program. At the system's limit, 65,530 on
# most, the compiler crashes.
MOST_MAPPED_REGIONS = 30_000


@pytest.fixture(scope="module", autouse=True)
def _drop_programs_in_time() -> Iterator[None]:
    """Lets go of the programs of earlier files before a process holds too many."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPPED_REGIONS:
        import jax

        jax.clear_caches()


def _is_optimized(node: pytest.Item | pytest.Collector) -> bool:
    return node.get_closest_marker("optimized") is not None


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
