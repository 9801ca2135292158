"""The interface of a decoder of any family, and its pass without a cache.

A decoder is a value with an embedding, stacked layers and a head. The layers are
scanned, so compile time does not grow with depth. The passes of `decoder_cached` keep
keys and values; they differ only in where a layer's keys and values come from.
"""

from collections.abc import Callable, Hashable
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.models.attention import AttentionBackend, causal_attention
from isara_jax.models.layers import ScoreHead

Remat = Literal["none", "full", "dots"]

# q, k, v of a layer -> (attended, what the pass carries from layer to layer).
Attend = Callable[[Array, Array, Array], tuple[Array, Any]]


@runtime_checkable
class DecoderConfig(Hashable, Protocol):
    """The shape of a decoder: what the engine, the trainer and the fit table read.

    `context` counts positions. `window` is how many positions a query sees, its own
    included, or None for all before it. `tied_head` says that the embedding is the
    output head too. A model with a `score` head has no output head.
    """

    @property
    def vocab_size(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_size(self) -> int: ...
    @property
    def feed_forward(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def window(self) -> int | None: ...
    @property
    def tied_head(self) -> bool: ...
    @property
    def score(self) -> ScoreHead | None: ...


@runtime_checkable
class Decoder(Protocol):
    """A model as the passes, the engine and the trainer use it.

    `layers` is a pytree of the layers' parameters, stacked along the first axis.
    """

    layers: Any

    @property
    def config(self) -> DecoderConfig:
        """The numbers that fix the model's shape."""
        ...

    @property
    def embedding(self) -> Any:
        """The parameter of the token embeddings, [V, D] or narrower."""
        ...

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

    Attention runs on the platform's own backend unless one is given.
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
    """Returns the scores of every row's last token, of a model with a score head.

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
    indices = jnp.arange(tokens.shape[1])
    last = jnp.max(jnp.where(segments != 0, indices, 0), axis=1)
    return model.scores(hidden[jnp.arange(tokens.shape[0]), last])


def left_padded_positions(segments: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Counts positions from each row's first token; padding gets 0."""
    return jnp.maximum(jnp.cumsum(segments != 0, axis=1) - 1, 0)
