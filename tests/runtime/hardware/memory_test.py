"""What is free, as the host and as an accelerator tell it."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from isara_jax.runtime.hardware import memory


def test_the_host_s_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    assert memory.free_bytes() is None
    memory.MEMINFO.write_text("MemTotal: 9 kB\nMemAvailable:    5 kB\n")
    assert memory.free_bytes() == 5 * 1024
    memory.MEMINFO.write_text("MemTotal: 9 kB\n")
    assert memory.free_bytes() is None


@pytest.mark.parametrize(
    ("stats", "free"),
    [
        ([{"bytes_limit": 9, "bytes_in_use": 2}], 7),
        ([{"bytes_limit": n, "bytes_in_use": 2} for n in (9, 6, 8)], 4),
        ([{"bytes_limit": 9, "bytes_in_use": 2}, None], None),
    ],
)
def test_an_accelerator_s_memory(monkeypatch, stats, free):
    devices = [
        SimpleNamespace(platform="gpu", memory_stats=lambda found=found: found)
        for found in stats
    ]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert memory.free_bytes() == free


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc: nothing is kept"
)
def test_what_was_freed_goes_back():
    program = """
import pathlib
from isara_jax.runtime.hardware import trim_malloc

def resident():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

before = resident()
kept = [bytearray(b"x" * 100_000) for _ in range(3000)]
last = kept[-1]
del kept
held = resident()
trim_malloc()
print(before, held, resident())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    before, held, after = map(int, done.stdout.split())
    assert held > before + 200_000, "glibc keeps what lies below something in use"
    assert after < before + 20_000
