"""The choice of the next token: the candidates that the rules leave, and the draw."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from isara_jax.engine.sampling.logits_processors import (
    TokenBuffer,
    decay_length,
    keep_likely,
    keep_nucleus,
    penalise_repetition,
    repeated_ngrams,
    rule_out_early_ends,
)
from isara_jax.engine.sampling.params import StaticParams, TracedParams


def sample(
    logits: Float[Array, "B V"],
    static: StaticParams,
    *,
    traced: TracedParams,
    texts: TokenBuffer,
    eos: Int[Array, " E"],
    keys: Key[Array, " B"],
) -> Int[Array, " B"]:
    """Chooses a token a row; the row's key and nothing else decides its chance."""
    scores, tokens = candidates(logits, static, traced=traced, texts=texts, eos=eos)
    if static.greedy:
        chosen = jnp.argmax(scores, axis=-1)
    else:
        chosen = jax.vmap(jax.random.categorical)(keys, scores)
    return jnp.take_along_axis(tokens, chosen[:, None], axis=1)[:, 0]


def candidates(
    logits: Float[Array, "B V"],
    static: StaticParams,
    *,
    traced: TracedParams,
    texts: TokenBuffer,
    eos: Int[Array, " E"],
) -> tuple[Float[Array, "B C"], Int[Array, "B C"]]:
    """Returns the scores to choose by and the tokens they are of; -inf: ruled out.

    The rules apply in the order of transformers: repetition penalty, n-grams, least
    length, length decay, temperature, top-k, top-p, min-p. Of tokens that tie at the
    last place of the top-k the lower ids are in. With beams the logits are
    log-probabilities, and sampling leaves a beam a token more than there are ends.
    """
    scores = _ruled(logits, static, traced=traced, texts=texts, eos=eos)
    scores = scores / traced.temperature
    vocabulary = scores.shape[1]
    if not (static.top_k or static.nucleus or static.likely):
        return scores, jnp.broadcast_to(jnp.arange(vocabulary), scores.shape)
    least = tokens_beyond_ends(eos) if static.beams > 1 else 1
    count = max(static.top_k, least) if static.top_k else vocabulary
    best, tokens = jax.lax.top_k(scores, min(count, vocabulary))
    if static.nucleus:
        best = keep_nucleus(best, top_p=traced.top_p, least=least)
    if static.likely:
        best = keep_likely(best, min_p=traced.min_p, least=least)
    return best, tokens


def tokens_beyond_ends(eos: Int[Array, " E"]) -> int:
    """Returns how many tokens a beam needs so that one of them does not end it."""
    return max(2, eos.shape[0] + 1)


def _ruled(
    scores: Float[Array, "B V"],
    static: StaticParams,
    *,
    traced: TracedParams,
    texts: TokenBuffer,
    eos: Int[Array, " E"],
) -> Float[Array, "B V"]:
    """Applies the rules that hold whether a token is sampled or the best is taken."""
    if static.penalised:
        scores = penalise_repetition(
            scores, seen=texts.seen, penalty=traced.repetition_penalty
        )
    if static.no_repeat_ngram:
        repeated = repeated_ngrams(
            texts, length=static.no_repeat_ngram, vocabulary=scores.shape[1]
        )
        scores = jnp.where(repeated, -jnp.inf, scores)
    if static.prolonged:
        scores = rule_out_early_ends(
            scores,
            eos=eos,
            generated=texts.generated,
            least=traced.min_new_tokens,
        )
    if static.decayed:
        scores = decay_length(
            scores,
            eos=eos,
            generated=texts.generated,
            start=traced.length_decay_start,
            factor=traced.length_decay_factor,
        )
    return scores
