"""The TPU slices that programs can be compiled for, by their accelerator types.

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

from isara_jax.errors import EnvironmentFailure, FieldError

# The topologies of slices by their number of chips, as libtpu names them: a 2D torus
# or mesh, and a 3D torus.
TORUS_2D = {
    1: "1x1",
    4: "2x2",
    8: "2x4",
    16: "4x4",
    32: "4x8",
    64: "8x8",
    128: "8x16",
    256: "16x16",
}
TORUS_3D = {
    4: "2x2x1",
    8: "2x2x2",
    16: "2x2x4",
    32: "2x4x4",
    64: "4x4x4",
    128: "4x4x8",
    256: "4x8x8",
}
# libtpu reads these when it is loaded. With them it looks for no chip and no metadata
# server.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_ACCELERATOR_TYPE": "v5e-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
NAME = re.compile(r"(?:([1-9]\d{0,2})x)?([a-z0-9]+)-([1-9]\d{0,3})")
MAX_SLICES = 64


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A generation of TPU.

    `flops` are dense bf16 operations a second. `bandwidth` and `interconnect` are bytes
    a second of its memory and of its links, both directions together. `memory` are the
    bytes that the compiler gives to programs on a device. `topologies` are libtpu's
    names of the slices by their number of chips. A chip has `devices` devices and
    counts as `counted` in the name of a slice.
    """

    flops: float
    bandwidth: float
    interconnect: float
    memory: int
    topologies: Mapping[int, str]
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
        topologies=TORUS_3D,
        counted=2,
        options={"chip_config_name": "megacore"},
    ),
    "v5e": Chip(
        flops=197e12,
        bandwidth=819e9,
        interconnect=400e9,
        memory=_gib(15.75),
        topologies=TORUS_2D,
    ),
    "v5p": Chip(
        flops=459e12,
        bandwidth=2765e9,
        interconnect=1200e9,
        memory=_gib(95.74),
        topologies=TORUS_3D,
        counted=2,
    ),
    "v6e": Chip(
        flops=918e12,
        bandwidth=1640e9,
        interconnect=800e9,
        memory=_gib(31.25),
        topologies=TORUS_2D,
    ),
    "tpu7x": Chip(
        flops=2307e12,
        bandwidth=7380e9,
        interconnect=1200e9,
        memory=_gib(94.75),
        topologies=TORUS_3D,
        devices=2,
        counted=2,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """`count` slices of `chips` chips each, of one generation (`kind`)."""

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
        for chips in self.chip.topologies:
            if chips > self.chips:
                yield replace(self, chips=chips)

    def devices(self) -> list[Any]:
        """Returns abstract devices, which programs can be compiled for.

        Raises:
          EnvironmentFailure: libtpu, which has the compiler, is not installed.
        """
        if find_spec("libtpu") is None:
            raise EnvironmentFailure(
                f"the slice {self.name} needs libtpu, whose compiler runs on any Linux "
                "on x86-64; run pip install libtpu, or name no slice"
            )
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        topology = f"{self.kind}:{self.chip.topologies[self.chips]}"
        found: list[Any] = topologies.get_topology_desc(
            platform="tpu",
            topology_name=topology,
            **({"num_slices": self.count} if self.count > 1 else {}),
            **({"chips_per_host_bounds": (1, 1, 1)} if self.chips == 1 else {}),
            **self.chip.options,
        ).devices
        return found


def slice_named(name: str) -> Slice:
    """Returns the slice of a name such as v5e-16, or the slices of 2xv5e-256.

    Raises:
      FieldError: there is none of the name.
    """
    parts = NAME.fullmatch(name)
    if parts is not None and parts[2] in CHIPS:
        chip = CHIPS[parts[2]]
        chips, rest = divmod(int(parts[3]), chip.counted)
        count = int(parts[1] or 1)
        if chips in chip.topologies and not rest and count <= MAX_SLICES:
            return Slice(kind=parts[2], chips=chips, count=count)
    known = "; ".join(
        ", ".join(Slice(kind=kind, chips=chips).name for chips in chip.topologies)
        for kind, chip in CHIPS.items()
    )
    raise FieldError(
        "slice",
        name,
        f"no such slice; known are {known}; up to {MAX_SLICES} of one kind together "
        "are 2xv5e-256 and the like",
    )


def compile_without_chips() -> None:
    """Lets JAX use this host's CPU only, while it compiles for a slice."""
    jax.config.update("jax_platforms", "cpu")
