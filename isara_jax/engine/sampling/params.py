"""How the next token is chosen, as a value, and the choice itself."""

from dataclasses import dataclass, field
from math import inf, isfinite

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.errors import FieldError


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen; the paper's are in docs/method.md, "Decoding"."""

    max_new_tokens: int = field(metadata={"help": "longest continuation, in tokens"})
    temperature: float = field(
        default=1.0, metadata={"help": "softmax temperature; 0 decodes greedily"}
    )
    top_k: int = field(
        default=50, metadata={"help": "sample among so many best tokens; 0: all"}
    )
    top_p: float = field(
        default=1.0,
        metadata={"help": "sample among the best tokens of this total probability"},
    )
    repetition_penalty: float = field(
        default=1.0,
        metadata={"help": "scale against tokens seen in prompt or text; 1: off"},
    )
    no_repeat_ngram: int = field(
        default=0, metadata={"help": "forbid to repeat any n tokens in a row; 0: off"}
    )
    min_p: float = field(
        default=0.0,
        metadata={"help": "sample among tokens this likely, the best being 1; 0: all"},
    )
    min_new_tokens: int = field(
        default=0, metadata={"help": "forbid to end before so many tokens; 0: off"}
    )
    length_decay_start: int = field(
        default=0,
        metadata={"help": "tokens after which the end grows likelier step by step"},
    )
    length_decay_factor: float = field(
        default=1.0,
        metadata={"help": "growth a token of the end's score after that; 1: off"},
    )
    beams: int = field(
        default=1,
        metadata={
            "help": "continuations kept side by side, the best of which is returned: "
            "beam search at temperature 0, beam-sample above; 1: no beams"
        },
    )
    length_penalty: float = field(
        default=1.0,
        metadata={
            "help": "beams are ranked by log-probability / length^this: above 0 "
            "favours long ones"
        },
    )

    def __post_init__(self) -> None:
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, ">= 1"),
            "temperature": (self.temperature >= 0, ">= 0"),
            "top_k": (self.top_k >= 0, ">= 0"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "repetition_penalty": (self.repetition_penalty > 0, "> 0"),
            "no_repeat_ngram": (self.no_repeat_ngram >= 0, ">= 0"),
            "min_p": (0 <= self.min_p <= 1, "in [0, 1]"),
            "min_new_tokens": (
                0 <= self.min_new_tokens <= self.max_new_tokens,
                f"from 0 to `max_new_tokens`={self.max_new_tokens}",
            ),
            "length_decay_start": (self.length_decay_start >= 0, ">= 0"),
            "length_decay_factor": (0 < self.length_decay_factor < inf, "> 0, finite"),
            "beams": (self.beams >= 1, ">= 1"),
            "length_penalty": (isfinite(self.length_penalty), "finite"),
        }
        combinations = {
            "length_decay_start": (
                self.length_decay_start == 0 or self.length_decay_factor != 1,
                "0 where `length_decay_factor` is 1",
            ),
            "length_penalty": (
                self.length_penalty == 1 or self.beams > 1,
                "1 where there are no beams",
            ),
        }
        for name, (holds, rule) in (*rules.items(), *combinations.items()):
            if not holds:
                raise FieldError(name, getattr(self, name), f"must be {rule}")

    @property
    def static(self) -> "StaticParams":
        """What is compiled: which rules apply. Their strengths are data."""
        greedy = self.temperature == 0
        return StaticParams(
            greedy=greedy,
            beams=self.beams,
            penalised=self.repetition_penalty != 1,
            no_repeat_ngram=self.no_repeat_ngram,
            prolonged=self.min_new_tokens > 0,
            decayed=self.length_decay_factor != 1,
            top_k=0 if greedy else self.top_k,
            nucleus=self.top_p < 1 and not greedy,
            likely=self.min_p > 0 and not greedy,
        )

    @property
    def traced(self) -> "TracedParams":
        """What is passed to the compiled program."""
        return TracedParams(
            temperature=jnp.float32(self.temperature or 1.0),
            top_p=jnp.float32(self.top_p),
            min_p=jnp.float32(self.min_p),
            repetition_penalty=jnp.float32(self.repetition_penalty),
            min_new_tokens=jnp.int32(self.min_new_tokens),
            length_decay_start=jnp.int32(self.length_decay_start),
            length_decay_factor=jnp.float32(self.length_decay_factor),
            length_penalty=jnp.float32(self.length_penalty),
        )


@dataclass(frozen=True, kw_only=True)
class StaticParams:
    """The static part of a `SamplingParams`."""

    greedy: bool
    beams: int
    penalised: bool
    no_repeat_ngram: int
    prolonged: bool
    decayed: bool
    top_k: int
    nucleus: bool
    likely: bool


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TracedParams:
    """The part of a `SamplingParams` that changes without a compilation."""

    temperature: Float[Array, ""]
    top_p: Float[Array, ""]
    min_p: Float[Array, ""]
    repetition_penalty: Float[Array, ""]
    min_new_tokens: Int[Array, ""]
    length_decay_start: Int[Array, ""]
    length_decay_factor: Float[Array, ""]
    length_penalty: Float[Array, ""]
