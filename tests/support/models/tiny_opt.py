"""An OPT of random weights that runs in milliseconds, and its twin in torch."""

import numpy as np
import torch
import transformers

from isara_jax.models.checkpoints.load import load_model
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.opt.model import OptConfig
from isara_jax.runtime.mesh import make_mesh

TINY_OPT = OptConfig(
    vocab_size=97,
    width=32,
    embedding_width=32,
    layers=2,
    heads=4,
    feed_forward=64,
    context=128,
    activation="relu",
    pre_norm=True,
    final_norm=True,
    biases=True,
    tied_head=True,
)
# OPT-350m's shape: a table narrower than the layers, which norm after themselves.
OPT_350M = {"do_layer_norm_before": False, "word_embed_proj_dim": 16}
OPTS = {"125m": {}, "350m": OPT_350M}


def write_opt(folder, **changes):
    """Writes the folder and returns transformers' OPT in fp32."""
    sizes = {
        "vocab_size": 97,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 128,
        "dropout": 0.0,
        "init_std": 0.1,
        "attn_implementation": "eager",
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 2,
    }
    torch.manual_seed(0)
    twin = transformers.OPTForCausalLM(transformers.OPTConfig(**(sizes | changes)))
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.dim() == 1:  # scales and biases that do something
                parameter.add_(torch.randn_like(parameter) * 0.1)
    twin.eval().save_pretrained(folder)
    return twin


def load_opt(folder):
    return load_model(
        open_model(folder), dtype="float32", mesh=make_mesh(data=1, model=1)
    )


def relative_error(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)
