"""The logits of rows of tokens, all positions at once."""

import jax
import jax.numpy as jnp

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
