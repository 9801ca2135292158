"""OPT as Hugging Face writes it down: config attributes and tensor names."""

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
from isara_jax.models.opt.model import ACTIVATIONS, OptConfig

IGNORED_ATTRIBUTES = frozenset(
    "architectures torch_dtype dtype transformers_version use_cache bos_token_id "
    "eos_token_id pad_token_id init_std initializer_range _name_or_path prefix dropout "
    "attention_dropout activation_dropout layerdrop output_hidden_states "
    "output_attentions return_dict is_encoder_decoder sep_token_id "
    "decoder_start_token_id chunk_size_feed_forward".split()
)
SHAPE_ATTRIBUTES = frozenset(
    "model_type vocab_size hidden_size word_embed_proj_dim num_hidden_layers "
    "num_attention_heads ffn_dim max_position_embeddings activation_function "
    "do_layer_norm_before _remove_final_layer_norm enable_bias tie_word_embeddings "
    "layer_norm_elementwise_affine".split()
)
DECODER = "model.decoder."
LAYER = DECODER + "layers.{}."
# OPT's name of each projection, and its layout.
PROJECTIONS: dict[str, tuple[str, Layout]] = {
    "q": ("self_attn.q_proj", "projection"),
    "k": ("self_attn.k_proj", "projection"),
    "v": ("self_attn.v_proj", "projection"),
    "o": ("self_attn.out_proj", "merge_heads"),
    "up": ("fc1", "projection"),
    "down": ("fc2", "projection"),
}
NORMS = {"attention_norm": "self_attn_layer_norm", "mlp_norm": "final_layer_norm"}


def config_from_hf(a: ConfigReader) -> OptConfig:
    """Reads the attributes of a `config.json`.

    Raises:
      InputError: an attribute is unknown, missing, or has a value that is not
        implemented.
    """
    a.validate_known(IGNORED_ATTRIBUTES | SHAPE_ATTRIBUTES | SCORE_ATTRIBUTES)
    if not a.boolean("layer_norm_elementwise_affine", default=True):
        raise a.error("layer_norm_elementwise_affine", False, "expected true")
    width, heads = a.positive_int("hidden_size"), a.positive_int("num_attention_heads")
    if width % heads:
        raise a.error("num_attention_heads", heads, f"expected a divisor of {width}")
    pre_norm = a.boolean("do_layer_norm_before", default=True)
    removed = a.boolean("_remove_final_layer_norm", default=False)
    return OptConfig(
        vocab_size=a.positive_int("vocab_size"),
        width=width,
        embedding_width=a.positive_int("word_embed_proj_dim", default=width),
        layers=a.positive_int("num_hidden_layers"),
        heads=heads,
        feed_forward=a.positive_int("ffn_dim"),
        context=a.positive_int("max_position_embeddings"),
        activation=a.one_of("activation_function", ACTIVATIONS, default="relu"),
        pre_norm=pre_norm,
        final_norm=pre_norm and not removed,
        biases=a.boolean("enable_bias", default=True),
        tied_head=a.boolean("tie_word_embeddings", default=True),
        score=score_head(a),
    )


def config_to_hf(config: OptConfig, *, dtype: str) -> dict[str, Any]:
    """Returns the attributes of a `config.json` that transformers reads."""
    return {
        **architecture_attributes(config.score, family="OPT"),
        "model_type": "opt",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "word_embed_proj_dim": config.embedding_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "ffn_dim": config.feed_forward,
        "max_position_embeddings": config.context,
        "activation_function": config.activation,
        "do_layer_norm_before": config.pre_norm,
        "_remove_final_layer_norm": config.pre_norm and not config.final_norm,
        "enable_bias": config.biases,
        "layer_norm_elementwise_affine": True,
        "tie_word_embeddings": config.tied_head,
        "torch_dtype": dtype,
    }


def tensor_maps(config: OptConfig) -> tuple[TensorMap, ...]:
    """Lists every parameter of an OPT with its name in a Hugging Face file."""
    maps = [
        model_tensor(f"{DECODER}embed_tokens.weight", "embedding"),
        model_tensor(f"{DECODER}embed_positions.weight", "positions"),
        *score_tensors(config.score),
    ]
    if config.projected:
        maps.extend(
            model_tensor(f"{DECODER}{name}.weight", name, "projection")
            for name in ("project_in", "project_out")
        )
    if config.final_norm:
        norm = f"{DECODER}final_layer_norm"
        maps.append(model_tensor(f"{norm}.weight", "norm_scale", "flat"))
        maps.append(model_tensor(f"{norm}.bias", "norm_bias", "flat"))
    if not config.tied_head and config.score is None:
        maps.append(model_tensor("lm_head.weight", "head"))
    for name, hf_name in NORMS.items():
        norm = LAYER + hf_name
        maps.append(layer_tensor(f"{norm}.weight", f"{name}_scale", "flat"))
        maps.append(layer_tensor(f"{norm}.bias", f"{name}_bias", "flat"))
    for name, (hf_name, layout) in PROJECTIONS.items():
        maps.append(layer_tensor(f"{LAYER}{hf_name}.weight", name, layout))
        if config.biases:
            maps.append(layer_tensor(f"{LAYER}{hf_name}.bias", f"{name}_bias", "flat"))
    return tuple(maps)
