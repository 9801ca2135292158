"""What one process compiled, the next one finds."""

import os
import subprocess
import sys

import jax
import pytest

from isara_jax.runtime.hardware.compilation import enable_compilation_cache

# Half a second to compile, as only that is kept.
PROGRAM = """
import sys, jax, jax.numpy as jnp
from jax import monitoring
from isara_jax.runtime.hardware import enable_compilation_cache

events = []
monitoring.register_event_listener(lambda event, **_: events.append(event))
enable_compilation_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

@jax.jit
def cube(x):
    return x**3

print(cube(jnp.float32(2)))
print("hits", sum(event == "/jax/compilation_cache/cache_hits" for event in events))
"""


def run(folder):
    environment = {k: v for k, v in os.environ.items() if "COMPILATION" not in k}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    result, hits = ran.stdout.splitlines()
    assert result == "8.0"
    return int(hits.removeprefix("hits "))


def test_a_second_process_compiles_nothing_again(tmp_path):
    assert run(tmp_path / "cache") == 0
    assert list((tmp_path / "cache").iterdir())
    assert run(tmp_path / "cache") > 0


def test_an_empty_name_keeps_nothing(tmp_path):
    assert run("") == 0
    assert run("") == 0


@pytest.fixture
def _settings_stay():
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("_settings_stay")
def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    enable_compilation_cache("~/compiled")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "compiled")


@pytest.mark.usefixtures("_settings_stay")
def test_an_empty_name_changes_no_setting():
    before = jax.config.jax_compilation_cache_dir
    enable_compilation_cache("")
    assert jax.config.jax_compilation_cache_dir == before
