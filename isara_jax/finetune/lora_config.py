"""The settings of LoRA adapters (arXiv 2106.09685), trained instead of the model."""

import math
from dataclasses import dataclass, field
from typing import Literal

from isara_jax.errors import FieldError


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which adapters are trained, and on what base. The paper trains the whole model.

    Raises:
      FieldError: a value is outside its range, or has no effect without a rank.
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
        metadata={
            "help": "the adapters' product is scaled by `lora_alpha` / `lora_rank`"
        },
    )
    lora_targets: str = field(
        default="heads,kv_heads,mlp",
        metadata={
            "help": "the weights with adapters: those that have one of these axes "
            "(heads, kv_heads, mlp) or names (q, k, v, o, gate, up, down)"
        },
    )
    base_dtype: Literal["keep", "int8", "nf4"] = field(
        default="keep",
        metadata={
            "help": "of the frozen model's weights while adapters are trained; keep: "
            "`dtype`. M_t is then this base merged with its adapters"
        },
    )

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise FieldError("lora_rank", self.lora_rank, "must be 0 or more")
        if not 0 < self.lora_alpha < math.inf:
            raise FieldError("lora_alpha", self.lora_alpha, "must be above 0")
        if self.lora_rank and not self.targets:
            raise FieldError("lora_targets", "", "must name a weight or an axis of one")
        if self.base_dtype != "keep" and not self.lora_rank:
            raise FieldError(
                "base_dtype",
                self.base_dtype,
                "needs `lora_rank`: a quantised model cannot be trained itself",
            )

    @property
    def targets(self) -> tuple[str, ...]:
        """The axes and names in `lora_targets`."""
        names = (name.strip() for name in self.lora_targets.split(","))
        return tuple(name for name in names if name)
