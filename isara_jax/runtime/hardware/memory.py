"""How much memory there is left to plan with, and giving back what was freed."""

import ctypes
from pathlib import Path

import jax

MEMINFO = Path("/proc/meminfo")


def free_bytes() -> int | None:
    """Returns what is free on the device with the least, or nothing where none tells.

    On CPU that is what the kernel says it can give without swapping, shared by all.
    """
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return _free_of_host()
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in found for found in stats):
        return None
    return min(found["bytes_limit"] - found["bytes_in_use"] for found in stats)


def trim_malloc() -> None:
    """Hands what was freed back to the system, where the C library keeps it.

    glibc keeps a layer's arrays for the next ones of their size, beside which what is
    allocated next, the gradients, would not find room.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _free_of_host() -> int | None:
    if not MEMINFO.exists():
        return None
    for line in MEMINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None
