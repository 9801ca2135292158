"""What a beam search keeps of every prompt: texts that go on, and texts that ended.

The rules are those of transformers with `early_stopping=False`. A text's score is the
sum of what the decoding rules leave of its tokens' log-probabilities; once it ended it
is divided by length^length_penalty. W is the number of beams, N of new tokens.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from isara_jax.engine.sampling import (
    StaticParams,
    TokenBuffer,
    TracedParams,
    candidates,
    tokens_beyond_ends,
)

# The score of what is no text. It is finite: transformers adds and divides it as well.
NO_SCORE = -1e9


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """Continuations of every prompt, W of them; one of length 0 is none.

    `log_probabilities` are the model's own, a token each.
    """

    tokens: Int[Array, "B W N"]
    log_probabilities: Float[Array, "B W N"]
    lengths: Int[Array, "B W"]
    scores: Float[Array, "B W"]

    def at(self, places: Int[Array, "B C"]) -> "Hypotheses":
        """Returns the hypotheses that stand at the places of their prompt."""
        row = jnp.arange(places.shape[0])[:, None]
        return jax.tree.map(lambda array: array[row, places], self)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Extensions:
    """Tokens by which the beams of a prompt may go on, in the order of their choice.

    `scores` are those of the texts that they would make.
    """

    beams: Int[Array, "B C"]
    tokens: Int[Array, "B C"]
    scores: Float[Array, "B C"]


def no_hypotheses(*, rows: int, beams: int, new_tokens: int) -> Hypotheses:
    """Returns room for hypotheses of `new_tokens` at the most, and none of them."""
    shape = (rows, beams)
    return Hypotheses(
        tokens=jnp.zeros((*shape, new_tokens), jnp.int32),
        log_probabilities=jnp.zeros((*shape, new_tokens)),
        lengths=jnp.zeros(shape, jnp.int32),
        scores=jnp.full(shape, NO_SCORE, jnp.float32),
    )


def extensions(
    log_probabilities: Float[Array, "B W V"],
    static: StaticParams,
    *,
    traced: TracedParams,
    running: Hypotheses,
    texts: TokenBuffer,
    eos: Int[Array, " E"],
    keys: Key[Array, " B"],
) -> Extensions:
    """Takes the best extensions, or draws as many without replacement, by their score.

    `texts` are those of all beams, B * W rows. There are enough extensions that W of
    them do not end their text.
    """
    rows, beams, vocabulary = log_probabilities.shape
    scores, tokens = candidates(
        log_probabilities.reshape(rows * beams, vocabulary),
        static,
        traced=traced,
        texts=texts,
        eos=eos,
    )
    count = scores.shape[1]
    scores = running.scores[..., None] + scores.reshape(rows, beams, count)
    scores, tokens = scores.reshape(rows, -1), tokens.reshape(rows, -1)
    ranks = scores
    if not static.greedy:
        # The best of scores with Gumbel noise are draws without replacement from their
        # softmax, the first draw first.
        noise = jax.vmap(partial(jax.random.gumbel, shape=scores.shape[1:]))(keys)
        ranks = scores + noise
    chosen = best_of(ranks, tokens_beyond_ends(eos) * beams)
    take = partial(jnp.take_along_axis, indices=chosen, axis=1)
    return Extensions(beams=chosen // count, tokens=take(tokens), scores=take(scores))


def extended(
    running: Hypotheses, by: Extensions, *, log_probabilities: Float[Array, "B W V"]
) -> Hypotheses:
    """Writes the extensions behind the texts of their beams."""
    row = jnp.arange(by.beams.shape[0])[:, None]
    place = jnp.arange(by.beams.shape[1])
    texts = running.at(by.beams)
    at = (row, place, texts.lengths)
    return Hypotheses(
        tokens=texts.tokens.at[at].set(by.tokens),
        log_probabilities=texts.log_probabilities.at[at].set(
            log_probabilities[row, by.beams, by.tokens]
        ),
        lengths=texts.lengths + 1,
        scores=by.scores,
    )


def still_open(
    texts: Hypotheses, *, ended: Bool[Array, "B C"], beams: int
) -> tuple[Hypotheses, Int[Array, "B W"]]:
    """Returns the best texts to go on with, and their places among all."""
    scores = jnp.where(ended, NO_SCORE + texts.scores, texts.scores)
    places = best_of(scores, beams)
    return replace(texts, scores=scores).at(places), places


def with_finished(
    finished: Hypotheses,
    texts: Hypotheses,
    *,
    ended: Bool[Array, "B C"],
    done: Bool[Array, " B"],
    traced: TracedParams,
) -> Hypotheses:
    """Keeps the best W of the finished texts and of those that have just ended.

    Of the extensions the first W alone may enter; the others are there to go on with.
    """
    beams = finished.scores.shape[1]
    enters = ended & (jnp.arange(ended.shape[1]) < beams) & ~done[:, None]
    ranked = texts.scores / texts.lengths**traced.length_penalty
    entering = replace(
        texts,
        lengths=jnp.where(enters, texts.lengths, 0),
        scores=jnp.where(enters, ranked, NO_SCORE),
    )
    both = jax.tree.map(
        lambda old, new: jnp.concatenate([old, new], axis=1), finished, entering
    )
    return both.at(best_of(both.scores, beams))


def is_decided(
    running: Hypotheses, finished: Hypotheses, *, traced: TracedParams
) -> Bool[Array, " B"]:
    """Tells where the best beam, were it to end now, would beat no finished text.

    With a length penalty the beam might still rise: this is a heuristic.
    """
    best = running.scores[:, 0] / running.lengths[:, 0] ** traced.length_penalty
    full = jnp.all(finished.lengths > 0, axis=1)
    worst = jnp.where(full, jnp.min(finished.scores, axis=1), NO_SCORE)
    return ~(best > worst)


def best_of(scores: Float[Array, "B C"], count: int) -> Int[Array, "B W"]:
    """Returns the places of the best scores, the best first."""
    return jax.lax.top_k(scores, count)[1]
