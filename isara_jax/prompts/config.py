"""The settings of a run's prompts."""

from dataclasses import dataclass, field

from isara_jax.errors import FieldError
from isara_jax.prompts.demo_order import DemoOrder
from isara_jax.prompts.templates import TemplateName


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How a run's prompts are written."""

    template: TemplateName = field(
        default="paper",
        metadata={
            "help": "how conversations are written: the paper's text; the same with a "
            "space before a trained answer, as in its demonstrations; or the model's "
            "own chat format"
        },
    )
    demo_tokens: int = field(
        default=2000,
        metadata={"help": "the most tokens that a prompt's demonstrations take"},
    )
    demo_order: DemoOrder = field(
        default="paper",
        metadata={
            "help": "how a prompt's demonstrations are ordered; paper: as drawn, or "
            "nearest first; shared: so that many prompts share a prefix, which is "
            "computed once"
        },
    )

    def __post_init__(self) -> None:
        if self.demo_tokens < 0:
            raise FieldError("demo_tokens", self.demo_tokens, "must be 0 or more")
