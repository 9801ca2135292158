"""Free memory, and the return of freed memory to the system."""

import ctypes
from pathlib import Path

import jax

MEMINFO = Path("/proc/meminfo")


def free_bytes() -> int | None:
    """Returns the free bytes of the device with the least, or None if unknown.

    On CPU that is what the kernel can give without swapping, shared by all devices.
    """
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return _free_of_host()
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in found for found in stats):
        return None
    return min(found["bytes_limit"] - found["bytes_in_use"] for found in stats)


def trim_malloc() -> None:
    """Returns freed memory to the system, which glibc keeps for later allocations.

    After loading a model these are the host's copies of its layers, and the next
    allocations, the gradients, have another size.
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
