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
        greedy = self.temperature == 0
        return Form(
            greedy=greedy,
            penalised=self.repetition_penalty != 1,
            no_repeat_ngram=self.no_repeat_ngram,
            top_k=0 if greedy else self.top_k,
            nucleus=self.top_p < 1 and not greedy,
        )

    @property
    def strengths(self) -> "Strengths":
        """What is passed to the compiled program."""
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
    *,
    strengths: Strengths,
    history: Int[Array, "B S"],
    segments: Int[Array, "B S"],
    seen: Bool[Array, "B V"],
    keys: Key[Array, " B"],
) -> Int[Array, " B"]:
    """Chooses a token a row; the row's key and nothing else decides its chance."""
    scores, tokens = candidates(
        logits,
        form,
        strengths=strengths,
        history=history,
        segments=segments,
        seen=seen,
    )
    if form.greedy:
        chosen = jnp.argmax(scores, axis=-1)
    else:
        chosen = jax.vmap(jax.random.categorical)(keys, scores)
    return jnp.take_along_axis(tokens, chosen[:, None], axis=1)[:, 0]


def candidates(
    logits: Float[Array, "B V"],
    form: Form,
    *,
    strengths: Strengths,
    history: Int[Array, "B S"],
    segments: Int[Array, "B S"],
    seen: Bool[Array, "B V"],
) -> tuple[Float[Array, "B C"], Int[Array, "B C"]]:
    """Returns the logits to choose by and the tokens they are of; -inf: ruled out.

    The rules apply in the order of transformers: repetition penalty, n-grams,
    temperature, top-k, top-p. Of tokens that tie at the last place of the top-k the
    lower ids are in.
    """
    if form.penalised:
        logits = penalise_repetition(
            logits, seen=seen, penalty=strengths.repetition_penalty
        )
    if form.no_repeat_ngram:
        banned = repeated_ngrams(
            history,
            segments=segments,
            length=form.no_repeat_ngram,
            vocabulary=logits.shape[1],
        )
        logits = jnp.where(banned, -jnp.inf, logits)
    logits = logits / strengths.temperature
    if not (form.top_k or form.nucleus):
        return logits, jnp.broadcast_to(jnp.arange(logits.shape[1]), logits.shape)
    count = min(form.top_k or logits.shape[1], logits.shape[1])
    best, tokens = jax.lax.top_k(logits, count)
    if form.nucleus:
        best = keep_nucleus(best, top_p=strengths.top_p)
    return best, tokens


def penalise_repetition(
    logits: Float[Array, "B V"], *, seen: Bool[Array, "B V"], penalty: Float[Array, ""]
) -> Float[Array, "B V"]:
    """Divides the positive and multiplies the negative logits of seen tokens."""
    scaled = jnp.where(logits < 0, logits * penalty, logits / penalty)
    return jnp.where(seen, scaled, logits)


def repeated_ngrams(
    history: Int[Array, "B S"],
    *,
    segments: Int[Array, "B S"],
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
    repeats = written
    for back in range(1, length):
        newest = jnp.take(history, jnp.maximum(end - back, 0), axis=1)
        earlier = jnp.roll(history, back, axis=1)
        inside = jnp.roll(written, back, axis=1) & (jnp.arange(slots) >= back)
        repeats &= (earlier == newest[:, None]) & inside
    marks = jnp.zeros((rows, vocabulary), bool)
    return marks.at[jnp.arange(rows)[:, None], history].max(repeats)


def keep_nucleus(
    best: Float[Array, "B C"], *, top_p: Float[Array, ""]
) -> Float[Array, "B C"]:
    """Rules out, of logits from the best down, those that follow `top_p` in sum."""
    probabilities = jax.nn.softmax(best)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    return jnp.where(before < top_p, best, -jnp.inf)
