"""The TPU slices that programs can be compiled for, by the names they are rented under.

A chip's figures are those of Google's pages, cloud.google.com/tpu/docs/v4, /v5e, /v5p,
/v6e and /tpu7x; v4's links are as fast as v5e's, and six instead of four. What a name
counts differs: v5e-16 and v6e-8 count chips (/v5e, the table of slices), v4-8 and v5p-8
TensorCores, of which a chip has two (/v5p, the same table: 8 cores are 4 chips); JAX
sees such a chip as one device. tpu7x-8 counts TensorCores as well, each a device of its
own with half of its chip's memory (/tpu7x, the architecture of two chiplets; what GKE
names the slice of one chip, TPU_ACCELERATOR_TYPE=tpu7x-2).
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import jax
from jax.experimental import topologies

from isara_jax.errors import EnvironmentFailure, InputError

# How slices of so many chips are wired; libtpu takes them by these names.
IN_A_PLANE = {
    1: "1x1",
    4: "2x2",
    8: "2x4",
    16: "4x4",
    32: "4x8",
    64: "8x8",
    128: "8x16",
    256: "16x16",
}
IN_SPACE = {
    4: "2x2x1",
    8: "2x2x2",
    16: "2x2x4",
    32: "2x4x4",
    64: "4x4x4",
    128: "4x4x8",
    256: "4x8x8",
}
# What libtpu reads when it is loaded, so that it compiles, looks for no chip, and does
# not complain that none has told it where it is.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_ACCELERATOR_TYPE": "v5e-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
NAME = re.compile(r"(?:([1-9]\d{0,2})x)?([a-z0-9]+)-([1-9]\d{0,3})")
MOST_SLICES = 64


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A generation of TPU.

    `flops` a second are those of dense bf16, `bandwidth` and `interconnect` bytes a
    second of its memory and of its links, both directions together. Of what a slice's
    name counts a chip has `counted`. `memory` are the bytes that the compiler gives to
    programs on a device; the rest it reserves.
    """

    flops: float
    bandwidth: float
    interconnect: float
    memory: int
    wired: Mapping[int, str]
    devices: int = 1
    counted: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


def _gib(gibibytes: float) -> int:
    return int(gibibytes * 2**30)


CHIPS = {
    "v4": Chip(
        flops=275e12,
        bandwidth=1200e9,
        interconnect=600e9,
        memory=_gib(30.75),
        wired=IN_SPACE,
        counted=2,
        options={"chip_config_name": "megacore"},
    ),
    "v5e": Chip(
        flops=197e12,
        bandwidth=819e9,
        interconnect=400e9,
        memory=_gib(15.75),
        wired=IN_A_PLANE,
    ),
    "v5p": Chip(
        flops=459e12,
        bandwidth=2765e9,
        interconnect=1200e9,
        memory=_gib(95.74),
        wired=IN_SPACE,
        counted=2,
    ),
    "v6e": Chip(
        flops=918e12,
        bandwidth=1640e9,
        interconnect=800e9,
        memory=_gib(31.25),
        wired=IN_A_PLANE,
    ),
    "tpu7x": Chip(
        flops=2307e12,
        bandwidth=7380e9,
        interconnect=1200e9,
        memory=_gib(94.75),
        wired=IN_SPACE,
        devices=2,
        counted=2,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """So many slices of a kind, of so many chips each."""

    kind: str
    chips: int
    count: int = 1

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def name(self) -> str:
        own = f"{self.kind}-{self.chips * self.chip.counted}"
        return own if self.count == 1 else f"{self.count}x{own}"

    def larger(self) -> Iterator["Slice"]:
        """Yields the larger slices of the kind, nearest first."""
        for chips in self.chip.wired:
            if chips > self.chips:
                yield replace(self, chips=chips)

    def devices(self) -> list[Any]:
        """Returns devices that can be compiled for, though nobody has them.

        Raises:
          EnvironmentFailure: libtpu, whose compiler does it, is not installed.
        """
        if find_spec("libtpu") is None:
            raise EnvironmentFailure(
                f"--slice={self.name}: needs libtpu, whose compiler runs on any Linux "
                "on x86-64; run pip install libtpu, or leave --slice out"
            )
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        wiring = f"{self.kind}:{self.chip.wired[self.chips]}"
        found: list[Any] = topologies.get_topology_desc(
            platform="tpu",
            topology_name=wiring,
            **({"num_slices": self.count} if self.count > 1 else {}),
            **({"chips_per_host_bounds": (1, 1, 1)} if self.chips == 1 else {}),
            **self.chip.options,
        ).devices
        return found


def slice_named(name: str) -> Slice:
    """Returns the slice of a name such as v5e-16, or the slices of 2xv5e-256.

    Raises:
      InputError: there is none of the name.
    """
    parts = NAME.fullmatch(name)
    if parts is not None and parts[2] in CHIPS:
        chip = CHIPS[parts[2]]
        chips, rest = divmod(int(parts[3]), chip.counted)
        count = int(parts[1] or 1)
        if chips in chip.wired and not rest and count <= MOST_SLICES:
            return Slice(kind=parts[2], chips=chips, count=count)
    known = "; ".join(
        ", ".join(Slice(kind=kind, chips=chips).name for chips in chip.wired)
        for kind, chip in CHIPS.items()
    )
    raise InputError(
        f"--slice={name}: no such slice; known are {known}; up to {MOST_SLICES} of one "
        "kind together are 2xv5e-256 and the like"
    )


def compile_without_chips() -> None:
    """Makes JAX look for no accelerator of its own where a slice is compiled for."""
    jax.config.update("jax_platforms", "cpu")
