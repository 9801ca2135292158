"""A LLaMA of random weights that runs in milliseconds, and its twin in torch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from isara_jax.models.checkpoints.load import named_tensors
from isara_jax.models.llama.model import Llama, LlamaConfig

TINY = LlamaConfig(
    vocab_size=97,
    width=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_size=8,
    feed_forward=64,
    context=128,
    rope_base=10_000.0,
    norm_epsilon=1e-5,
    tied_head=True,
)
# Sizes of which none is another's product, so that no attribute stands for another.
ODD = dataclasses.replace(
    TINY,
    vocab_size=7,
    width=12,
    heads=6,
    kv_heads=3,
    head_size=4,
    feed_forward=10,
    context=64,
    rope_base=500.0,
    norm_epsilon=1e-3,
)


def tiny_llama(*, seed=0, dtype=jnp.float32):
    random = np.random.default_rng(seed)

    def drawn(variable):
        shape = variable.get_value().shape
        is_scale = variable.get_metadata()["axes"][-1] == "norm"
        value = float(is_scale) + 0.1 * random.standard_normal(shape)
        return variable.replace(jnp.asarray(value, dtype))

    abstract = jax.eval_shape(lambda: Llama(TINY, key=jax.random.key(0), dtype=dtype))
    return jax.tree.map(
        drawn, abstract, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
    )


def torch_llama(model):
    """Returns transformers' LLaMA in fp32 with the same weights."""
    import torch
    import transformers

    c = model.config
    twin = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.width,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            num_key_value_heads=c.kv_heads,
            head_dim=c.head_size,
            intermediate_size=c.feed_forward,
            max_position_embeddings=c.context,
            rope_theta=c.rope_base,
            rms_norm_eps=c.norm_epsilon,
            tie_word_embeddings=c.tied_head,
            attn_implementation="eager",
        )
    )
    tensors = {
        name: torch.from_numpy(np.array(value, np.float32))
        for name, value in named_tensors(model)
    }
    twin.load_state_dict(tensors, strict=not c.tied_head)
    return twin
