"""Reads a LLaMA from a GGUF file: its configuration and its tensors' names."""

import re
from collections.abc import Callable, Collection
from pathlib import Path

import gguf
import numpy as np
from jaxtyping import Float32

from isara_jax.errors import InputError
from isara_jax.models.formats import ConfigReader, TensorSource
from isara_jax.models.layers import RopeScaling, rotary_frequencies
from isara_jax.models.llama.huggingface import validate_heads
from isara_jax.models.llama.model import LlamaConfig
from isara_jax.runtime import GgufFile

# The sizes that are not read below stand in the tensors too, whose shapes are checked.
KEYS = frozenset(
    "llama." + key
    for key in (
        "block_count context_length embedding_length feed_forward_length vocab_size "
        "attention.head_count attention.head_count_kv attention.key_length "
        "attention.value_length attention.layer_norm_rms_epsilon rope.freq_base "
        "rope.dimension_count rope.scaling.type rope.scaling.factor".split()
    )
)
GGUF_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GGUF_HEAD = "output.weight"
GGUF_OTHER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    GGUF_HEAD: "lm_head.weight",
}
# What llama.cpp divides the rotary frequencies by.
FREQUENCY_FACTORS = "rope_freqs.weight"
ATTENTION_BIAS = "blk.0.attn_q.bias"
MLP_BIAS = "blk.0.ffn_up.bias"
# Llama 3.1 and 3.2 scale by these; a file holds what follows from the numbers only.
LLAMA3_SCALINGS = tuple(
    RopeScaling(kind="llama3", factor=factor, low=1.0, high=4.0, original_context=8192)
    for factor in (8.0, 32.0)
)


def read_gguf_config(file: GgufFile) -> LlamaConfig:
    """Reads the shape of the model in a GGUF file.

    Raises:
      InputError: as `config_from_gguf`, or the frequency factors are damaged.
    """
    factors = TensorSource(
        path=file.path,
        readers={
            tensor.name: _dequantizer(tensor)
            for tensor in file.tensors
            if tensor.name == FREQUENCY_FACTORS
        },
    )
    return config_from_gguf(
        ConfigReader(path=file.path, values=file.metadata),
        tensors={tensor.name for tensor in file.tensors},
        frequency_factors=(
            factors.read(FREQUENCY_FACTORS) if factors.readers else None
        ),
    )


def config_from_gguf(
    a: ConfigReader,
    *,
    tensors: Collection[str],
    frequency_factors: Float32[np.ndarray, " half"] | None,
) -> LlamaConfig:
    """Reads a GGUF file's metadata; its tensors show what these leave open.

    Raises:
      InputError: the model is no LLaMA, or a key is unknown, missing, or has a value
        that is not computed.
    """
    a.require("general.architecture", "llama")
    a.validate_known(KEYS | {k for k in a.values if not k.startswith("llama.")})
    heads = a.positive_int("llama.attention.head_count")
    width = a.positive_int("llama.embedding_length")
    head_size = a.positive_int("llama.rope.dimension_count", default=width // heads)
    base = a.positive_float("llama.rope.freq_base", default=10_000.0)
    linear = _linear_scaling(a)
    llama3 = _llama3_scaling(a, frequency_factors, head_size=head_size, base=base)
    if linear and llama3:
        raise a.error(
            "llama.rope.scaling.type", "linear", f"and {FREQUENCY_FACTORS} as well"
        )
    config = LlamaConfig(
        vocab_size=_count_of_tokens(a),
        width=width,
        layers=a.positive_int("llama.block_count"),
        heads=heads,
        kv_heads=a.positive_int("llama.attention.head_count_kv", default=heads),
        head_size=head_size,
        feed_forward=a.positive_int("llama.feed_forward_length"),
        context=a.positive_int("llama.context_length"),
        rope_base=base,
        rope_scaling=linear or llama3,
        norm_epsilon=_float32_digits(
            a.positive_float("llama.attention.layer_norm_rms_epsilon")
        ),
        tied_head=GGUF_HEAD not in tensors,
        attention_bias=ATTENTION_BIAS in tensors,
        mlp_bias=MLP_BIAS in tensors,
    )
    validate_heads(
        config,
        a,
        kv_heads="llama.attention.head_count_kv",
        head_size="llama.rope.dimension_count",
    )
    return config


def _linear_scaling(a: ConfigReader) -> RopeScaling | None:
    name = "llama.rope.scaling.type"
    if a.one_of(name, ("none", "linear"), default="none") == "linear":
        return RopeScaling(
            kind="linear", factor=a.positive_float("llama.rope.scaling.factor")
        )
    a.require("llama.rope.scaling.factor", None)
    return None


def _llama3_scaling(
    a: ConfigReader,
    factors: Float32[np.ndarray, " half"] | None,
    *,
    head_size: int,
    base: float,
) -> RopeScaling | None:
    """Finds the scaling that divides the frequencies by these factors."""
    if factors is None or np.all(factors == 1):
        return None
    unscaled = rotary_frequencies(head_size, base=base, scaling=None)
    for scaling in LLAMA3_SCALINGS:
        expected = unscaled / rotary_frequencies(head_size, base=base, scaling=scaling)
        if factors.shape == expected.shape and np.allclose(
            factors, expected, rtol=1e-4
        ):
            return scaling
    raise InputError(
        f"{a.path}: the tensor {FREQUENCY_FACTORS!r} scales rotary positions in a way "
        "that is not computed, expected that of Llama 3 with a factor of "
        + " or ".join(f"{scaling.factor:g}" for scaling in LLAMA3_SCALINGS)
    )


def _count_of_tokens(a: ConfigReader) -> int:
    tokens = a.values.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise InputError(f"{a.path}: tokenizer.ggml.tokens is no list of tokens")
    return len(tokens)


def _float32_digits(value: float) -> float:
    """Drops the digits that a float32 never held (9.9999997e-06 is 1e-05)."""
    return float(f"{value:.6g}")


def open_gguf_tensors(file: GgufFile, config: LlamaConfig) -> TensorSource:
    """Names a GGUF file's tensors as Hugging Face does; reading dequantizes to fp32.

    llama.cpp stores the rows of the query and key projections of a head as the pairs
    that it rotates; they are put back in the order of Hugging Face's halves.

    Raises:
      InputError: the file holds a tensor that a LLaMA does not have.
    """
    readers: dict[str, Callable[[], np.ndarray]] = {}
    interleaved = {"q_proj": config.heads, "k_proj": config.kv_heads}
    for tensor in file.tensors:
        if tensor.name == FREQUENCY_FACTORS:  # which the configuration has read
            continue
        name = _hugging_face_name(tensor.name, file.path)
        heads = interleaved.get(name.split(".")[-2])
        readers[name] = _dequantizer(tensor, heads=heads)
    return TensorSource(path=file.path, readers=readers)


def _dequantizer(
    tensor: gguf.ReaderTensor, *, heads: int | None = None
) -> Callable[[], np.ndarray]:
    """Returns a function that reads a tensor as fp32, its heads' rows in order."""

    def read() -> np.ndarray:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.astype(np.float32, copy=False)
        # What is not of so many heads is no projection; the loader refuses its shape.
        if heads is None or values.ndim == 0 or len(values) % (2 * heads):
            return values
        return _split_halves(values, heads)

    return read


def _split_halves(interleaved: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's row order (pairs side by side) of a projection or its bias."""
    rows, *columns = interleaved.shape
    pairs = interleaved.reshape(heads, rows // heads // 2, 2, *columns)
    return pairs.swapaxes(1, 2).reshape(interleaved.shape)


def _hugging_face_name(name: str, path: Path) -> str:
    if name in GGUF_OTHER_NAMES:
        return GGUF_OTHER_NAMES[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in GGUF_LAYER_NAMES:
        raise InputError(f"{path}: the tensor {name!r} is none of a LLaMA's")
    return f"model.layers.{match[1]}.{GGUF_LAYER_NAMES[match[2]]}.{match[3]}"
