"""Chips that programs are compiled for though nobody here has them.

TPUs need libtpu. GPUs need `pip install 'jax[cuda12]'`, on a machine with or without
one: XLA compiles for a description of the device. Its figures are those of an H100 in
pull request 25919 of openxla/xla; bandwidth and memory are NVIDIA's data sheets'.
Nothing is tuned on the device, so the compiler chooses the forms of products by its own
estimates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jax.experimental import topologies

HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: 9 }}
}}
platform_name: "CUDA"
device_description_str: "NVIDIA {name}"
runtime_version {{ major: 12 minor: 9 }}
dnn_version_info {{ major: 9 minor: 10 }}
"""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Four chips of a kind, and by program a part of the name of the kernel due there.

    `call` is how the compiler's text names what is no product or fusion of its own.
    """

    topology: Mapping[str, Any]
    kernels: Mapping[str, str]
    call: str

    def devices(self) -> list[Any]:
        """Returns the devices, which can be compiled for and nothing else."""
        found: list[Any] = topologies.get_topology_desc(**self.topology).devices
        return found


def _tpu(topology: str) -> Target:
    paged = "ragged_paged_attention"
    return Target(
        topology={"platform": "tpu", "topology_name": topology},
        kernels={"decode": paged, "prefill": paged, "gradient": "splash_mha"},
        call="tpu_custom_call",
    )


def _gpu(name: str, *, bandwidth: float, memory: float) -> Target:
    described = HOPPER.format(name=name, bandwidth=int(bandwidth), memory=int(memory))
    return Target(
        topology={
            "platform": "cuda",
            "topology": "1x1x4",
            "target_config": described,
        },
        kernels={"decode": "gqa", "prefill": "__cudnn$fmha", "gradient": "mha"},
        call="custom-call(",
    )


TARGETS = {
    "v5e": _tpu("v5e:2x2"),
    "v5p": _tpu("v5p:2x2x1"),
    "v6e": _tpu("v6e:2x2"),
    "h100": _gpu("H100 80GB HBM3", bandwidth=3.35e12, memory=80e9),
    "h200": _gpu("H200", bandwidth=4.8e12, memory=141e9),
}
TPUS = ["v5e", "v5p", "v6e"]
