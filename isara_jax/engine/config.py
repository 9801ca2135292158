"""The engine's settings."""

from dataclasses import dataclass, field

from isara_jax.engine.scheduler import useful_slots
from isara_jax.errors import FieldError


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How many prompts the engine continues at once."""

    max_slots: int = field(
        default=0,
        metadata={
            "help": "prompts that are continued at once, at most; 0: 32 on CPU, 256 "
            "elsewhere. Fewer where memory has no room for so many"
        },
    )

    def __post_init__(self) -> None:
        if self.max_slots < 0:
            raise FieldError("max_slots", self.max_slots, "must be 0 or more")

    @property
    def slots(self) -> int:
        """The number of slots, chosen by the platform where the field is 0."""
        return self.max_slots or useful_slots()
