"""Rows of tokens at all positions at once: their logits, or their hidden states."""

import jax
import jax.numpy as jnp
import numpy as np

from isara_jax.models.decoder import hidden_states, left_padded_positions


def logits_of(model, tokens, segments=None):
    """Segments are 1 for a token, 0 for padding on either side; none is no padding."""
    tokens = jnp.asarray(tokens)
    segments = jnp.ones_like(tokens) if segments is None else jnp.asarray(segments)
    return jitted_logits(model, tokens, segments)


@jax.jit
def jitted_logits(model, tokens, segments):
    hidden = hidden_states(
        model,
        tokens,
        segments=segments,
        positions=left_padded_positions(segments),
        remat="none",
    )
    flat = model.logits(hidden.reshape(-1, hidden.shape[-1]))
    return flat.reshape(*tokens.shape, -1)


_whole = jax.jit(hidden_states, static_argnames="remat")


def drawn_tokens(rows, length):
    return jnp.asarray(np.random.default_rng(0).integers(0, 97, (rows, length)))


def states(model, tokens, *, segments=None, positions=None, remat="none"):
    segments = jnp.ones_like(tokens) if segments is None else segments
    positions = left_padded_positions(segments) if positions is None else positions
    return _whole(model, tokens, segments=segments, positions=positions, remat=remat)
