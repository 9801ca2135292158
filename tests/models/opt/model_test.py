"""How an OPT is split over a mesh; families_test holds it against torch."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tiny_opt import load_opt, write_opt

from isara_jax.models.checkpoints.load import abstract_model
from isara_jax.runtime.mesh import make_mesh, model_shardings

EXPECTED = {
    "embedding": ("model", None),
    "positions": (None, "data"),
    "project_in": (None, "data"),
    "project_out": ("data", None),
    "layers.q": (None, "data", "model", None),
    "layers.k": (None, "data", "model", None),
    "layers.v": (None, "data", "model", None),
    "layers.o": (None, "model", None, "data"),
    "layers.up": (None, "data", "model"),
    "layers.down": (None, "model", "data"),
    "layers.q_bias": (None, "model", None),
    "layers.k_bias": (None, "model", None),
    "layers.v_bias": (None, "model", None),
    "layers.o_bias": (None, None),
    "layers.up_bias": (None, "model"),
    "layers.down_bias": (None, None),
    "layers.attention_norm_scale": (None, None),
    "layers.attention_norm_bias": (None, None),
    "layers.mlp_norm_scale": (None, None),
    "layers.mlp_norm_bias": (None, None),
}


def test_parameters_are_split_by_their_axis_words(tmp_path):
    write_opt(
        tmp_path, vocab_size=96, do_layer_norm_before=False, word_embed_proj_dim=16
    )
    model = load_opt(tmp_path)
    shardings = model_shardings(
        abstract_model(model.config, dtype="float32"), make_mesh(data=2, model=4)
    )
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        shardings, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
    )
    found = {
        ".".join(str(key.name) for key in path): tuple(variable.get_value().spec)
        for path, variable in leaves
    }
    assert found == EXPECTED


def test_a_new_model_has_neutral_norms_and_biases(tmp_path):
    write_opt(tmp_path)
    config = load_opt(tmp_path).config
    model = type(load_opt(tmp_path))(config, key=jax.random.key(0), dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(model.layers.attention_norm_scale[...], 1)
    np.testing.assert_array_equal(model.layers.up_bias[...], 0)
    assert 0.01 < float(jnp.std(model.layers.up[...].astype(jnp.float32))) < 0.03
