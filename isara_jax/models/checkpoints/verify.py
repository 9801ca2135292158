"""Compares a converted model with its source by their outputs for a fixed text."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from isara_jax.errors import InputError
from isara_jax.models.attention import XLA
from isara_jax.models.checkpoints.load import load_model
from isara_jax.models.checkpoints.open import OpenedModel
from isara_jax.models.decoder import Decoder, hidden_states
from isara_jax.runtime import Tokenizer, make_mesh

TEXT = """The harbour was quiet when the ferry came in at half past six. Two men threw
the ropes, a third one counted the passengers: 41, as every Tuesday. "Is the library
still open?" asked the girl with the green umbrella. It was not, but the baker's wife
had a key, and a kettle. They walked up the hill together, past the school, the chapel
and the house where the clockmaker used to live; at the top one could see the whole bay,
and the first lamps along the quay. What would you have said to somebody who had come so
far for a single book? She found it on the third shelf, thin and grey, 1897 on its
spine."""

# Of which dtypes a dtype holds every number.
EXACT = {
    "float32": {"float32", "bfloat16", "float16"},
    "bfloat16": {"bfloat16"},
    "float16": {"float16"},
}
# The most mean KL divergence, in nats a token, that rounding to a dtype explains.
OF_ROUNDING = {"bfloat16": 0.1, "float16": 0.01, "float32": 1e-6}
OF_NOTHING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Between two models: the largest of any logit, and the mean KL in nats."""

    positions: int
    largest: float
    divergence: float


def divergence_limit(found: Collection[str], dtype: str) -> float:
    """Returns the most KL that writing tensors of the found dtypes in one explains."""
    is_exact = EXACT[dtype].issuperset(found)
    return OF_NOTHING if is_exact else OF_ROUNDING[dtype]


def arithmetic(found: Collection[str], dtype: str) -> str:
    """Returns the dtype to compute both in: bf16 only where both are stored in it."""
    return "bfloat16" if set(found) == {dtype} == {"bfloat16"} else "float32"


def text_tokens(tokenizer: Tokenizer, *, context: int) -> tuple[int, ...]:
    """Returns the fixed text as the model reads it, as far as it fits."""
    return (*tokenizer.bos, *tokenizer.encode(TEXT))[:context]


def outputs(opened: OpenedModel, tokens: Sequence[int], *, dtype: str) -> np.ndarray:
    """Loads a model, and returns its logits or scores at every position.

    Raises:
      InputError: as `load_model`; or a token is beyond the model's vocabulary.
    """
    model = load_model(opened, dtype=dtype, mesh=make_mesh(data=-1, model=1))
    vocabulary = model.config.vocab_size
    if not tokens or max(tokens) >= vocabulary:
        raise InputError(
            f"{opened.path}: the tokenizer writes the ids {sorted(set(tokens))[-1:]}, "
            f"the model's end at {vocabulary - 1}"
        )
    return np.asarray(_outputs(model, jnp.asarray([tokens])))


def difference(
    reference: Float[np.ndarray, "T V"], written: Float[np.ndarray, "T V"], *, kind: str
) -> Difference:
    """Compares the logits of softmaxes, or scores behind sigmoids."""
    log_of = {"logits": _log_softmax, "scores": _log_sigmoids}[kind]
    p, q = log_of(reference), log_of(written)
    return Difference(
        positions=len(reference),
        largest=float(np.max(np.abs(reference - written))),
        divergence=float(np.mean(np.sum(np.exp(p) * (p - q), axis=-1))),
    )


@jax.jit
def _outputs(model: Decoder, tokens: Int[Array, "1 T"]) -> Float[Array, "T outputs"]:
    hidden = hidden_states(
        model,
        tokens,
        segments=jnp.ones_like(tokens),
        positions=jnp.arange(tokens.shape[1])[None],
        remat="none",
        backend=XLA,  # formats are compared, not kernels
    )[0]
    if model.config.score is None:
        return model.logits(hidden)
    return model.scores(hidden)


def _log_softmax(logits: Float[np.ndarray, "T V"]) -> Float[np.ndarray, "T V"]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def _log_sigmoids(scores: Float[np.ndarray, "T V"]) -> Float[np.ndarray, "T 2*V"]:
    wide = scores.astype(np.float64)
    return -np.logaddexp(0, np.concatenate([-wide, wide], axis=-1))
