"""The choice of the next token: the candidates that the rules leave, and the draw."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from isara_jax.engine.sampling.logits_processors import (
    Texts,
    decay_length,
    keep_likely,
    keep_nucleus,
    penalise_repetition,
    repeated_ngrams,
    rule_out_early_ends,
)
from isara_jax.engine.sampling.params import Form, Strengths


def choose(
    logits: Float[Array, "B V"],
    form: Form,
    *,
    strengths: Strengths,
    texts: Texts,
    eos: Int[Array, " E"],
    keys: Key[Array, " B"],
) -> Int[Array, " B"]:
    """Chooses a token a row; the row's key and nothing else decides its chance."""
    scores, tokens = candidates(logits, form, strengths=strengths, texts=texts, eos=eos)
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
    texts: Texts,
    eos: Int[Array, " E"],
) -> tuple[Float[Array, "B C"], Int[Array, "B C"]]:
    """Returns the scores to choose by and the tokens they are of; -inf: ruled out.

    The rules apply in the order of transformers: repetition penalty, n-grams, least
    length, length decay, temperature, top-k, top-p, min-p. Of tokens that tie at the
    last place of the top-k the lower ids are in. With beams the logits are
    log-probabilities, and sampling leaves a beam a token more than there are ends.
    """
    scores = _ruled(logits, form, strengths=strengths, texts=texts, eos=eos)
    scores = scores / strengths.temperature
    vocabulary = scores.shape[1]
    if not (form.top_k or form.nucleus or form.likely):
        return scores, jnp.broadcast_to(jnp.arange(vocabulary), scores.shape)
    least = tokens_beyond_ends(eos) if form.beams > 1 else 1
    count = max(form.top_k, least) if form.top_k else vocabulary
    best, tokens = jax.lax.top_k(scores, min(count, vocabulary))
    if form.nucleus:
        best = keep_nucleus(best, top_p=strengths.top_p, least=least)
    if form.likely:
        best = keep_likely(best, min_p=strengths.min_p, least=least)
    return best, tokens


def tokens_beyond_ends(eos: Int[Array, " E"]) -> int:
    """Returns how many tokens a beam needs so that one of them does not end it."""
    return max(2, eos.shape[0] + 1)


def _ruled(
    scores: Float[Array, "B V"],
    form: Form,
    *,
    strengths: Strengths,
    texts: Texts,
    eos: Int[Array, " E"],
) -> Float[Array, "B V"]:
    """Applies the rules that hold whether a token is sampled or the best is taken."""
    if form.penalised:
        scores = penalise_repetition(
            scores, seen=texts.seen, penalty=strengths.repetition_penalty
        )
    if form.no_repeat_ngram:
        repeated = repeated_ngrams(
            texts, length=form.no_repeat_ngram, vocabulary=scores.shape[1]
        )
        scores = jnp.where(repeated, -jnp.inf, scores)
    if form.prolonged:
        scores = rule_out_early_ends(
            scores,
            eos=eos,
            generated=texts.generated,
            least=strengths.min_new_tokens,
        )
    if form.decayed:
        scores = decay_length(
            scores,
            eos=eos,
            generated=texts.generated,
            start=strengths.length_decay_start,
            factor=strengths.length_decay_factor,
        )
    return scores
