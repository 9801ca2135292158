"""The settings of adapters: what is trained instead of the whole model."""

import math
from dataclasses import dataclass, field
from typing import Literal

from isara_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which adapters are trained, and on what; the paper trains the whole model.

    Raises:
      InputError: a value is outside its range, or says nothing without a rank.
    """

    lora_rank: int = field(
        default=0,
        metadata={
            "help": "rank of adapters (LoRA) that are trained on the frozen model, "
            "which all rounds share; 0: the model itself is trained. Those of "
            "`adapter`, which must be of this rank, `lora_alpha` and `lora_targets`, "
            "are trained further. Adapters want a higher `learning_rate`, 1e-4 or so"
        },
    )
    lora_alpha: float = field(
        default=16.0,
        metadata={"help": "what adapters add is scaled by --lora_alpha / --lora_rank"},
    )
    lora_targets: str = field(
        default="heads,kv_heads,mlp",
        metadata={
            "help": "which kernels have adapters: those that have one of these axes "
            "(heads, kv_heads, mlp) or names (q, k, v, o, gate, up, down)"
        },
    )
    base_dtype: Literal["keep", "int8", "nf4"] = field(
        default="keep",
        metadata={
            "help": "of the frozen model's kernels while adapters are trained; keep: "
            "--dtype. M_t is then what is trained on and its adapters, merged"
        },
    )

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise InputError(f"--lora_rank={self.lora_rank}: must be 0 or more")
        if not 0 < self.lora_alpha < math.inf:
            raise InputError(f"--lora_alpha={self.lora_alpha}: must be above 0")
        if self.lora_rank and not self.targets:
            raise InputError("--lora_targets: must name a kernel or an axis of one")
        if self.base_dtype != "keep" and not self.lora_rank:
            raise InputError(
                f"--base_dtype={self.base_dtype}: needs --lora_rank, as what is "
                "quantised cannot be trained itself"
            )

    @property
    def targets(self) -> tuple[str, ...]:
        """Returns the words of --lora_targets."""
        words = (word.strip() for word in self.lora_targets.split(","))
        return tuple(word for word in words if word)
