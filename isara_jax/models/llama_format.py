"""LLaMA as Hugging Face and GGUF write it down: config attributes and tensor names.

An attribute or a tensor that is not listed here stops the conversion with its name, so
that no model is ever run with half of its arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gguf

from isara_jax.errors import InputError
from isara_jax.models.llama import LlamaConfig
from isara_jax.models.weights import gguf_value

# Attributes that say nothing of the arithmetic of a forward pass.
IGNORED_ATTRIBUTES = frozenset(
    "architectures model_type torch_dtype dtype transformers_version use_cache "
    "bos_token_id eos_token_id pad_token_id initializer_range pretraining_tp "
    "_name_or_path rope_interleaved is_llama_config attention_dropout "
    "transformers.js_config max_sequence_length chunk_size_feed_forward "
    "output_hidden_states output_attentions return_dict id2label label2id "
    "problem_type is_encoder_decoder sep_token_id decoder_start_token_id".split()
)
# Attributes whose other values this port does not compute.
ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_scaling": (None,),
    "sliding_window": (None,),
}
SHAPE_ATTRIBUTES = frozenset(
    "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
    "head_dim intermediate_size max_position_embeddings rope_theta rope_parameters "
    "rms_norm_eps tie_word_embeddings".split()
)


@dataclass(frozen=True, kw_only=True)
class TensorFormat:
    """Where a parameter lives in a Hugging Face file; `{}` is the layer's number.

    Projections are [out, in] there and [in, out] here, their head axes split.
    """

    name: str
    path: tuple[str, ...]
    transposed: bool


def tensor_formats(config: LlamaConfig) -> tuple[TensorFormat, ...]:
    """Lists every parameter of a LLaMA with its name in a Hugging Face file."""
    layer = "model.layers.{}."
    projections = {
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    }
    norms = {
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
    }
    whole = {"embedding": "model.embed_tokens", "norm": "model.norm"}
    if not config.tied_head:
        whole["head"] = "lm_head"
    return (
        *(_format(name, ours) for ours, name in whole.items()),
        *(_format(layer + n, "layers", o) for o, n in norms.items()),
        *(
            replace(_format(layer + name, "layers", ours), transposed=True)
            for ours, name in projections.items()
        ),
    )


def _format(name: str, *path: str) -> TensorFormat:
    return TensorFormat(name=f"{name}.weight", path=path, transposed=False)


def config_from_hugging_face(attributes: Mapping[str, Any]) -> LlamaConfig:
    """Reads a `config.json` of model_type llama.

    Raises:
      InputError: an attribute is unknown, missing, or has a value that is not computed.
    """
    a = dict(attributes)
    for name, value in a.items():
        allowed = ONLY_VALUES.get(name)
        if allowed is not None and value not in allowed:
            raise InputError(f"config.json: {name}={value!r}, expected {allowed[0]!r}")
        known = IGNORED_ATTRIBUTES | SHAPE_ATTRIBUTES | ONLY_VALUES.keys()
        if name not in known:
            raise InputError(f"config.json: the attribute {name}={value!r} is unknown")
    heads, width = _number(a, "num_attention_heads"), _number(a, "hidden_size")
    return _checked(
        LlamaConfig(
            vocab_size=_number(a, "vocab_size"),
            width=width,
            layers=_number(a, "num_hidden_layers"),
            heads=heads,
            kv_heads=_number(a, "num_key_value_heads", heads),
            head_size=_number(a, "head_dim", width // heads),
            feed_forward=_number(a, "intermediate_size"),
            context=_number(a, "max_position_embeddings"),
            rope_base=_rope_base(a),
            norm_epsilon=float(a.get("rms_norm_eps", 1e-6)),
            tied_head=bool(a.get("tie_word_embeddings", False)),
        )
    )


def config_from_gguf(reader: gguf.GGUFReader) -> LlamaConfig:
    """Reads the metadata of a GGUF file of architecture llama.

    Raises:
      InputError: a key is missing, or the rotary positions are scaled.
    """
    for field in reader.fields:
        if field.startswith("llama.rope.scaling"):
            raise InputError(f"GGUF metadata: {field} is set; scaling is not computed")
    names = {tensor.name for tensor in reader.tensors}

    def number(key: str) -> int:
        return int(gguf_value(reader, f"llama.{key}"))

    heads, width = number("attention.head_count"), number("embedding_length")
    return _checked(
        LlamaConfig(
            vocab_size=len(gguf_value(reader, "tokenizer.ggml.tokens")),
            width=width,
            layers=number("block_count"),
            heads=heads,
            kv_heads=number("attention.head_count_kv"),
            head_size=number("rope.dimension_count"),
            feed_forward=number("feed_forward_length"),
            context=number("context_length"),
            rope_base=float(gguf_value(reader, "llama.rope.freq_base")),
            norm_epsilon=_short(
                gguf_value(reader, "llama.attention.layer_norm_rms_epsilon")
            ),
            tied_head="output.weight" not in names,
        )
    )


def config_to_hugging_face(config: LlamaConfig, *, dtype: str) -> dict[str, Any]:
    """Writes the attributes of a `config.json` that transformers reads."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.feed_forward,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_head,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": dtype,
    }


def _number(a: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = a.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"config.json: {name}={value!r}, expected a positive integer")
    return value


def _rope_base(a: Mapping[str, Any]) -> float:
    parameters = a.get("rope_parameters") or {}
    kind = parameters.get("rope_type", "default")
    unknown = set(parameters) - {"rope_type", "rope_theta"}
    if kind != "default" or unknown:
        raise InputError(
            f"config.json: rope_parameters={parameters!r}, expected rope_type 'default'"
        )
    return float(parameters.get("rope_theta", a.get("rope_theta", 10000.0)))


def _short(value: float) -> float:
    """Drops the digits that a float32 never held (9.9999997e-06 is 1e-05)."""
    return float(f"{value:.6g}")


def _checked(config: LlamaConfig) -> LlamaConfig:
    if config.heads % config.kv_heads:
        raise InputError(
            f"num_attention_heads={config.heads}: must be a multiple of "
            f"num_key_value_heads={config.kv_heads}"
        )
    if config.head_size % 2:
        raise InputError(f"head_dim={config.head_size}: must be even")
    return config
