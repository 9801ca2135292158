"""How the next token is chosen, as a value, and the rules as functions of logits."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from isara_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """The decoding rules of one step of the loop (PAPER.md 1, table 'Decoding')."""

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

    def __post_init__(self) -> None:
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, ">= 1"),
            "temperature": (self.temperature >= 0, ">= 0"),
            "top_k": (self.top_k >= 0, ">= 0"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "repetition_penalty": (self.repetition_penalty > 0, "> 0"),
            "no_repeat_ngram": (self.no_repeat_ngram >= 0, ">= 0"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InputError(f"{name}={getattr(self, name)}: must be {rule}")

    @property
    def form(self) -> "Form":
        """What is compiled: which rules apply. Their strengths are data."""
        return Form(
            greedy=self.temperature == 0,
            penalised=self.repetition_penalty != 1,
            no_repeat_ngram=self.no_repeat_ngram,
            top_k=self.top_k,
            nucleus=self.top_p < 1,
        )

    @property
    def strengths(self) -> "Strengths":
        return Strengths(
            temperature=jnp.float32(self.temperature or 1.0),
            top_p=jnp.float32(self.top_p),
            repetition_penalty=jnp.float32(self.repetition_penalty),
        )


@dataclass(frozen=True, kw_only=True)
class Form:
    """The static part of a `Decoding`."""

    greedy: bool
    penalised: bool
    no_repeat_ngram: int
    top_k: int
    nucleus: bool


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Strengths:
    """The part of a `Decoding` that changes without a compilation."""

    temperature: Float[Array, ""]
    top_p: Float[Array, ""]
    repetition_penalty: Float[Array, ""]


def choose(
    logits: Float[Array, "B V"],
    form: Form,
    strengths: Strengths,
    *,
    history: Int[Array, "B S"],
    segments: Int[Array, "B S"],
    seen: Bool[Array, "B V"],
    keys: Key[Array, " B"],
) -> Int[Array, " B"]:
    """Chooses a token a row; the row's key and nothing else decides its chance.

    The rules apply in the order of transformers: repetition penalty, n-grams,
    temperature, top-k, top-p.
    """
    if form.penalised:
        logits = penalise_repetition(logits, seen, strengths.repetition_penalty)
    if form.no_repeat_ngram:
        banned = repeated_ngrams(
            history, segments, length=form.no_repeat_ngram, vocabulary=logits.shape[1]
        )
        logits = jnp.where(banned, -jnp.inf, logits)
    if form.greedy:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return sample(logits / strengths.temperature, form, strengths, keys=keys)


def penalise_repetition(
    logits: Float[Array, "B V"], seen: Bool[Array, "B V"], penalty: Float[Array, ""]
) -> Float[Array, "B V"]:
    """Divides the positive and multiplies the negative logits of seen tokens."""
    scaled = jnp.where(logits < 0, logits * penalty, logits / penalty)
    return jnp.where(seen, scaled, logits)


def repeated_ngrams(
    history: Int[Array, "B S"],
    segments: Int[Array, "B S"],
    *,
    length: int,
    vocabulary: int,
) -> Bool[Array, "B V"]:
    """Marks the tokens that would end an n-gram which the row already holds.

    The newest token of every row stands where its written positions end; all rows end
    at one slot.
    """
    rows, slots = history.shape
    written = segments != 0
    end = jnp.max(jnp.where(written, jnp.arange(slots), -1)) + 1
    repeats = jnp.ones((rows, slots), bool)
    for back in range(1, length):
        newest = jnp.take(history, jnp.maximum(end - back, 0), axis=1)
        earlier = jnp.roll(history, back, axis=1)
        inside = jnp.roll(written, back, axis=1) & (jnp.arange(slots) >= back)
        repeats &= (earlier == newest[:, None]) & inside
    repeats &= written & (jnp.arange(slots) < end)
    marks = jnp.zeros((rows, vocabulary), bool)
    return marks.at[jnp.arange(rows)[:, None], history].max(repeats)


def sample(
    logits: Float[Array, "B V"],
    form: Form,
    strengths: Strengths,
    *,
    keys: Key[Array, " B"],
) -> Int[Array, " B"]:
    """Draws a token a row among the top-k, and of these among the top-p."""
    if form.top_k or form.nucleus:
        count = min(form.top_k or logits.shape[1], logits.shape[1])
        best, tokens = jax.lax.top_k(logits, count)
    else:
        best, tokens = logits, None
    if form.nucleus:
        before = jnp.cumsum(jax.nn.softmax(best), axis=-1) - jax.nn.softmax(best)
        best = jnp.where(before < strengths.top_p, best, -jnp.inf)
    drawn = jax.vmap(jax.random.categorical)(keys, best)
    if tokens is None:
        return drawn.astype(jnp.int32)
    return jnp.take_along_axis(tokens, drawn[:, None], axis=1)[:, 0].astype(jnp.int32)
