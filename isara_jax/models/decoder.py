"""What a decoder of any family is, and the pass over whole rows.

It is a value with an embedding, stacked layers and a head. The layers are scanned, so
compile time does not grow with depth. Passes that keep keys and values are those of
`cached`; they differ only in where a layer's keys and values come from.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.models.attention import AttentionBackend, causal_attention

Remat = Literal["none", "full", "dots"]

# q, k, v of a layer -> (attended, what the pass carries from layer to layer).
Attend = Callable[[Array, Array, Array], tuple[Array, Any]]


@runtime_checkable
class Decoder(Protocol):
    """What the passes, the engine and the trainer need of a model."""

    config: Any
    layers: Any

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Turns token ids into the residual stream."""
        ...

    def run_layer(
        self, layer: Any, x: Float[Array, "B T D"], positions: Any, attend: Attend
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Applies one layer, whose arrays have lost their leading L axis."""
        ...

    def finish(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the final norm."""
        ...

    def logits(self, hidden: Float[Array, "rows D"]) -> Float[Array, "rows V"]:
        """Applies the output head to chosen positions, in fp32."""
        ...

    def scores(self, hidden: Float[Array, "rows D"]) -> Float[Array, "rows labels"]:
        """Applies the score head, of a model that has one instead, in fp32."""
        ...


def hidden_states(
    model: Decoder,
    tokens: Int[Array, "B T"],
    *,
    segments: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    remat: Remat,
    backend: AttentionBackend | None = None,
) -> Float[Array, "B T D"]:
    """Runs whole rows without a cache; a position sees its segment up to itself.

    `backend` are what attention runs on: the platform's own unless given.
    """

    def layer_pass(x: Array, layer: Any) -> tuple[Array, None]:
        def attend(q: Array, k: Array, v: Array) -> tuple[Array, None]:
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
            return causal_attention(
                q,
                k,
                v,
                segments=segments,
                window=model.config.window,
                backend=backend,
            ), None

        return model.run_layer(layer, x, positions, attend)

    if remat == "full":
        layer_pass = jax.checkpoint(layer_pass)
    elif remat == "dots":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        layer_pass = jax.checkpoint(layer_pass, policy=policy)
    x, _ = jax.lax.scan(layer_pass, model.embed(tokens, positions), model.layers)
    return model.finish(x)


def pooled_scores(
    model: Decoder,
    tokens: Int[Array, "B T"],
    *,
    segments: Int[Array, "B T"],
    backend: AttentionBackend | None = None,
) -> Float[Array, "B labels"]:
    """Returns what a model with a score head says of every row's last token.

    Rows may be padded on either side; segments are 1 for a token and 0 for padding.
    """
    hidden = hidden_states(
        model,
        tokens,
        segments=segments,
        positions=left_padded_positions(segments),
        remat="none",
        backend=backend,
    )
    slots = jnp.arange(tokens.shape[1])
    last = jnp.max(jnp.where(segments != 0, slots, 0), axis=1)
    return model.scores(hidden[jnp.arange(tokens.shape[0]), last])


def left_padded_positions(segments: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Counts positions from each row's first token; padding gets 0."""
    return jnp.maximum(jnp.cumsum(segments != 0, axis=1) - 1, 0)
