"""The machines that programs are compiled for: TPU slices, or this host."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from isara_jax.fit.machines.tpu_slices import Slice
from isara_jax.runtime.hardware import device_peak_rates, free_bytes


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Devices that programs are compiled for, and the limits of each device.

    `memory` are the bytes that programs can use, None if unknown. `flops` are
    operations a second, `bandwidth` bytes of memory a second, and `interconnect` bytes
    a second of the links to other devices, None if unknown.
    """

    name: str
    devices: Sequence[Any]
    memory: int | None
    flops: float
    bandwidth: float
    interconnect: float | None


def machine_of(slice: Slice) -> Machine:
    """Returns the machine of a TPU slice, with the limits that Google publishes."""
    chip = slice.chip
    return Machine(
        name=slice.name,
        devices=slice.devices(),
        memory=chip.memory,
        flops=chip.flops / chip.devices,
        bandwidth=chip.bandwidth / chip.devices,
        interconnect=chip.interconnect / chip.devices,
    )


def this_host(dtype: str) -> Machine:
    """Returns this host, with its free memory and measured rates.

    Several CPU devices are one processor, whose memory and rates they share.
    """
    devices, free, rates = jax.devices(), free_bytes(), device_peak_rates(dtype)
    sharing = len(devices) if devices[0].platform == "cpu" else 1
    return Machine(
        name=f"this host ({devices[0].device_kind})",
        devices=devices,
        memory=None if free is None else free // sharing,
        flops=rates.flops_per_second / sharing,
        bandwidth=rates.bytes_per_second / sharing,
        interconnect=None,
    )
