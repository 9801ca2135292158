"""LLaMA as Hugging Face writes it down: config attributes and tensor names.

An attribute or a tensor that is not listed here stops the conversion with its name, so
that no model is ever run with half of its arithmetic.
"""

from typing import Any

from isara_jax.models.formats import (
    SCORE_ATTRIBUTES,
    ConfigReader,
    Layout,
    TensorMap,
    architecture_attributes,
    layer_tensor,
    model_tensor,
    score_head,
    score_tensors,
)
from isara_jax.models.llama.model import LlamaConfig
from isara_jax.models.llama.rope_config import rope_attributes, rope_base, rope_scaling

# Attributes that say nothing of the arithmetic of a forward pass.
IGNORED_ATTRIBUTES = frozenset(
    "architectures torch_dtype dtype transformers_version use_cache "
    "bos_token_id eos_token_id pad_token_id initializer_range pretraining_tp "
    "_name_or_path is_llama_config attention_dropout "
    "transformers.js_config max_sequence_length chunk_size_feed_forward "
    "output_hidden_states output_attentions return_dict "
    "is_encoder_decoder sep_token_id decoder_start_token_id".split()
)
PROJECTIONS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
# Attributes of which one value is implemented.
ONLY_VALUES: dict[str, Any] = {
    "hidden_act": "silu",
    "rope_interleaved": False,
}
SHAPE_ATTRIBUTES = frozenset(
    "model_type vocab_size hidden_size num_hidden_layers num_attention_heads "
    "num_key_value_heads head_dim intermediate_size max_position_embeddings rope_theta "
    "rope_parameters rope_scaling rms_norm_eps tie_word_embeddings attention_bias "
    "mlp_bias sliding_window".split()
)


def tensor_maps(config: LlamaConfig) -> tuple[TensorMap, ...]:
    """Lists every parameter of a LLaMA with its name in a Hugging Face file."""
    maps = [
        model_tensor("model.embed_tokens.weight", "embedding"),
        model_tensor("model.norm.weight", "norm"),
        *score_tensors(config.score),
    ]
    if not config.tied_head and config.score is None:
        maps.append(model_tensor("lm_head.weight", "head"))
    layer = "model.layers.{}."
    maps.append(
        layer_tensor(f"{layer}input_layernorm.weight", "attention_norm", "flat")
    )
    maps.append(
        layer_tensor(f"{layer}post_attention_layernorm.weight", "mlp_norm", "flat")
    )
    for name, hf_name in PROJECTIONS.items():
        layout: Layout = "merge_heads" if name == "o" else "projection"
        maps.append(layer_tensor(f"{layer}{hf_name}.weight", name, layout))
        if config.mlp_bias if hf_name.startswith("mlp") else config.attention_bias:
            bias = layer_tensor(f"{layer}{hf_name}.bias", f"{name}_bias", "flat")
            maps.append(bias)
    return tuple(maps)


def config_from_hf(a: ConfigReader) -> LlamaConfig:
    """Reads the attributes of a `config.json`.

    Raises:
      InputError: the model is no LLaMA, or an attribute is unknown, missing, or has a
        value that is not implemented.
    """
    for name in ONLY_VALUES.keys() & a.values.keys():
        a.require(name, ONLY_VALUES[name])
    a.validate_known(
        IGNORED_ATTRIBUTES | SHAPE_ATTRIBUTES | ONLY_VALUES.keys() | SCORE_ATTRIBUTES
    )
    heads, width = a.positive_int("num_attention_heads"), a.positive_int("hidden_size")
    config = LlamaConfig(
        vocab_size=a.positive_int("vocab_size"),
        width=width,
        layers=a.positive_int("num_hidden_layers"),
        heads=heads,
        kv_heads=a.positive_int("num_key_value_heads", default=heads),
        head_size=a.positive_int("head_dim", default=width // heads),
        feed_forward=a.positive_int("intermediate_size"),
        context=a.positive_int("max_position_embeddings"),
        rope_base=rope_base(a),
        rope_scaling=rope_scaling(a),
        norm_epsilon=a.positive_float("rms_norm_eps", default=1e-6),
        tied_head=a.boolean("tie_word_embeddings", default=False),
        window=a.optional_positive_int("sliding_window"),
        attention_bias=a.boolean("attention_bias", default=False),
        mlp_bias=a.boolean("mlp_bias", default=False),
        score=score_head(a),
    )
    validate_heads(config, a, kv_heads="num_key_value_heads", head_size="head_dim")
    return config


def config_to_hf(config: LlamaConfig, *, dtype: str) -> dict[str, Any]:
    """Returns the attributes of a `config.json` that transformers reads."""
    family = "Llama" if config.window is None else "Mistral"
    attributes = {
        **architecture_attributes(config.score, family=family),
        "model_type": family.lower(),
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
        "rope_parameters": rope_attributes(config),
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_head,
        "torch_dtype": dtype,
    }
    if config.window is not None:
        return attributes | {"sliding_window": config.window}
    biases = {
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
    }
    return attributes | biases


def validate_heads(
    config: LlamaConfig, a: ConfigReader, *, kv_heads: str, head_size: str
) -> None:
    """Checks that heads share KV heads evenly and have halves to rotate.

    Raises:
      InputError: they do not; it names the attribute of the two given.
    """
    if config.heads % config.kv_heads:
        raise a.error(
            kv_heads, config.kv_heads, f"expected a divisor of {config.heads}"
        )
    if config.head_size % 2:
        raise a.error(head_size, config.head_size, "expected an even number")
