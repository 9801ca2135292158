"""The decoding rules as functions of scores, one a rule; -inf: the token is ruled out.

`sample.candidates` puts them in order. They are those of transformers, and so is
every edge that shows in a text.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# What the length decay may raise a score to: certain by far, and still finite after
# the temperature. transformers lets it overflow, and then has nothing to draw from.
HIGHEST = 1e30


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TokenBuffer:
    """What the rules look at: prompt and continuation of every row so far.

        token_ids  . . p p p c c . .
        mask       0 0 1 1 1 1 1 ? ?     0: no part of the text
                          lengths=7      the columns up to the newest token
                        generated=2      the tokens of the continuation

    Columns from `lengths` on count for nothing, whatever the mask says.
    """

    token_ids: Int[Array, "B S"]
    mask: Int[Array, "B S"]
    lengths: Int[Array, " B"]
    generated: Int[Array, " B"]
    seen: Bool[Array, "B V"]


def penalise_repetition(
    scores: Float[Array, "B V"], *, seen: Bool[Array, "B V"], penalty: Float[Array, ""]
) -> Float[Array, "B V"]:
    """Divides the positive and multiplies the negative scores of seen tokens."""
    scaled = jnp.where(scores < 0, scores * penalty, scores / penalty)
    return jnp.where(seen, scaled, scores)


def repeated_ngrams(
    texts: TokenBuffer, *, length: int, vocabulary: int
) -> Bool[Array, "B V"]:
    """Marks the tokens that would end an n-gram which the row already holds."""
    rows, slots = texts.token_ids.shape
    written = (texts.mask != 0) & (jnp.arange(slots) < texts.lengths[:, None])
    repeats = written
    for back in range(1, length):
        at = jnp.maximum(texts.lengths - back, 0)[:, None]
        newest = jnp.take_along_axis(texts.token_ids, at, axis=1)
        earlier = jnp.roll(texts.token_ids, back, axis=1)
        inside = jnp.roll(written, back, axis=1) & (jnp.arange(slots) >= back)
        repeats &= (earlier == newest) & inside
    marks = jnp.zeros((rows, vocabulary), bool)
    return marks.at[jnp.arange(rows)[:, None], texts.token_ids].max(repeats)


def rule_out_early_ends(
    scores: Float[Array, "B V"],
    *,
    eos: Int[Array, " E"],
    generated: Int[Array, " B"],
    least: Int[Array, ""],
) -> Float[Array, "B V"]:
    """Rules the ends out of rows with fewer than `least` tokens of continuation."""
    early = (generated < least)[:, None]
    return jnp.where(early & _is_eos(scores, eos), -jnp.inf, scores)


def decay_length(
    scores: Float[Array, "B V"],
    *,
    eos: Int[Array, " E"],
    generated: Int[Array, " B"],
    start: Int[Array, ""],
    factor: Float[Array, ""],
) -> Float[Array, "B V"]:
    """Raises the ends' scores by |score| * (factor^(generated - start) - 1).

    This is transformers' rule since 4.32. Earlier versions multiplied the score, which
    lowered the negative ones (docs/method.md, "Departures from the paper").
    """
    late = jnp.maximum(generated - start, 0)[:, None]
    raised = scores + jnp.abs(scores) * (factor**late - 1)
    concerns = _is_eos(scores, eos) & (late > 0) & jnp.isfinite(scores)
    return jnp.where(concerns, jnp.minimum(raised, HIGHEST), scores)


def keep_nucleus(
    best: Float[Array, "B C"], *, top_p: Float[Array, ""], least: int
) -> Float[Array, "B C"]:
    """Rules out, of scores from the best down, those that follow `top_p` in sum.

    The first `least` stay.
    """
    probabilities = jax.nn.softmax(best)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    first = jnp.arange(best.shape[1]) < least
    return jnp.where((before < top_p) | first, best, -jnp.inf)


def keep_likely(
    best: Float[Array, "B C"], *, min_p: Float[Array, ""], least: int
) -> Float[Array, "B C"]:
    """Rules out, of scores from the best down, the less likely than min_p * the best.

    The first `least` stay.
    """
    probabilities = jax.nn.softmax(best)
    first = jnp.arange(best.shape[1]) < least
    likely = probabilities >= min_p * probabilities[:, :1]
    return jnp.where(likely | first, best, -jnp.inf)


def _is_eos(scores: Float[Array, "B V"], eos: Int[Array, " E"]) -> Bool[Array, " V"]:
    return jnp.zeros(scores.shape[1], bool).at[eos].set(True)
