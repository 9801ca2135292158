"""The named shapes have as many parameters as their authors say."""

import jax
import pytest

from isara_jax.errors import InputError
from isara_jax.fit.model_shapes import MODEL_SHAPES, model_shape
from isara_jax.models.checkpoints.load import abstract_model


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("llama-7b", 6738),
        ("llama-13b", 13_016),
        ("llama-70b", 68_977),
        ("opt-6.7b", 6658),
        ("opt-66b", 65_719),
    ],
)
def test_a_named_shape(name, millions):
    model = abstract_model(model_shape(name), dtype="bfloat16")
    count = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert round(count / 1e6) == pytest.approx(millions, abs=1)


def test_what_is_no_name_is_looked_for():
    assert "llama-8b" not in MODEL_SHAPES
    with pytest.raises(InputError, match="'llama-8b': no such file"):
        model_shape("llama-8b")
