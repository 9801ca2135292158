import jax
import numpy as np
import pytest
from changes import change_json, change_tensors, write_json
from tiny_bert import write_tiny_bert

from isara_jax.errors import InputError
from isara_jax.models.bert.huggingface import EncoderConfig, read_config
from isara_jax.models.bert.model import load_encoder


def test_config_is_read(tmp_path):
    write_tiny_bert(tmp_path)
    assert read_config(tmp_path) == EncoderConfig(
        vocab_size=23,
        width=32,
        layers=3,
        heads=4,
        feed_forward=48,
        context=40,
        token_types=2,
        norm_epsilon=1e-12,
        pooling="mean",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mpnet"}, "model_type='mpnet', expected 'bert'"),
        ({"model_type": None}, "model_type=None"),
        ({"hidden_act": "relu"}, "hidden_act='relu', expected 'gelu'"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type='relative_key', expected 'absolute'",
        ),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads="),
        ({"auto_map": {"AutoModel": "m.M"}}, "auto_map="),
        ({"vocab_size": None}, "vocab_size=None, expected a whole number above 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"hidden_size": "32"}, "hidden_size='32'"),
        ({"num_attention_heads": 5}, "num_attention_heads=5, expected a divisor of 32"),
        ({"layer_norm_eps": 0}, "layer_norm_eps=0, expected a number"),
    ],
)
def test_config_refused(tmp_path, changes, message):
    write_tiny_bert(tmp_path)
    change_json(tmp_path / "config.json", **changes)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path)


def test_attributes_without_arithmetic_are_let_through(tmp_path):
    write_tiny_bert(tmp_path)
    change_json(tmp_path / "config.json", auto_map=None, directionality="bidi")
    assert read_config(tmp_path).width == 32


@pytest.mark.parametrize("config", [None, "[]", "{"])
def test_config_missing_or_damaged(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match=r"config\.json: .*(no such|expected|damaged)"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("modes", "message"),
    [
        ({"pooling_mode_max_tokens": True}, "the pooling is pooling_mode_max_tokens"),
        ({"pooling_mode_mean_tokens": False}, "the pooling is none"),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "pooling_mode_mean_tokens with pooling_mode_cls_token",
        ),
    ],
)
def test_pooling_refused(tmp_path, modes, message):
    write_tiny_bert(tmp_path)
    write_json(tmp_path / "1_Pooling" / "config.json", modes)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"type": "sentence_transformers.models.Dense"}], "the step 'Dense'"),
        ({"0": "Dense"}, "expected a list"),
    ],
)
def test_further_steps_refused(tmp_path, steps, message):
    write_tiny_bert(tmp_path)
    write_json(tmp_path / "modules.json", steps)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path)


def test_ported_steps_are_let_through(tmp_path):
    write_tiny_bert(tmp_path)
    kinds = ("Transformer", "Pooling", "Normalize")
    steps = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    write_json(tmp_path / "modules.json", steps)
    assert read_config(tmp_path).pooling == "mean"


QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(QUERY), f"{QUERY}' is missing"),
        (lambda t: t.update({QUERY: np.zeros((32, 8))}), r"shape \[32, 8\], .*32, 32"),
        (lambda t: t.update(extra=np.zeros(1)), "the tensor 'extra' is none of"),
        (
            lambda t: t.update({"encoder.layer.3.output.dense.bias": np.zeros(32)}),
            "'encoder.layer.3.output.dense.bias' is none of",
        ),
    ],
)
def test_tensors_refused(tmp_path, change, message):
    write_tiny_bert(tmp_path)
    change_tensors(tmp_path, change)
    with pytest.raises(InputError, match=message):
        load_encoder(tmp_path)


def test_pooler_and_position_buffer_are_not_needed(tmp_path):
    write_tiny_bert(tmp_path)
    before = jax.tree.leaves(load_encoder(tmp_path))

    def change(tensors):
        del tensors["pooler.dense.weight"], tensors["pooler.dense.bias"]
        tensors["embeddings.position_ids"] = np.arange(40)[None]

    change_tensors(tmp_path, change)
    after = jax.tree.leaves(load_encoder(tmp_path))
    assert all(map(np.array_equal, before, after)) and len(before) == len(after)


def test_half_precision_files_are_widened(tmp_path):
    write_tiny_bert(tmp_path)
    whole = load_encoder(tmp_path).layers.up[...]
    change_tensors(
        tmp_path,
        lambda t: t.update({name: v.astype(np.float16) for name, v in t.items()}),
    )
    half = load_encoder(tmp_path).layers.up[...]
    np.testing.assert_array_equal(half, np.asarray(whole, np.float16))
