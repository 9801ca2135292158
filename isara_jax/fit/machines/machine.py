"""The machines that programs are compiled for: TPU slices, or this host."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from isara_jax.fit.machines.tpu_slices import Slice
from isara_jax.runtime.hardware import free_bytes, machine_rates


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What programs are compiled for.

    `memory` are the bytes that a device has for them, nothing where it does not say so;
    `flops`, `bandwidth` and `interconnect` what a device does at most in a second.
    """

    name: str
    devices: Sequence[Any]
    memory: int | None
    flops: float
    bandwidth: float
    interconnect: float | None


def machine_of(slice: Slice) -> Machine:
    """Returns a slice as a machine, by its maker's figures."""
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
    """Returns the machine that runs this, by what is free and what is measured on it.

    Several devices on CPU are parts of one, and share all that it has.
    """
    devices, free, rates = jax.devices(), free_bytes(), machine_rates(dtype)
    sharing = len(devices) if devices[0].platform == "cpu" else 1
    return Machine(
        name=f"this host ({devices[0].device_kind})",
        devices=devices,
        memory=None if free is None else free // sharing,
        flops=rates.flops_per_second / sharing,
        bandwidth=rates.bytes_per_second / sharing,
        interconnect=None,
    )
