"""What is free, as the host and as an accelerator tell it."""

from types import SimpleNamespace

import jax
import pytest

from isara_jax.runtime import memory


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
