"""Every variant of LLaMA and OPT against transformers on torch, and against itself."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from changes import change_tensors
from flax import nnx
from safetensors.numpy import save_file
from safetensors.torch import load_file
from tiny_families import (
    LENGTH,
    VARIANTS,
    VOCABULARY,
    WINDOW,
    ScoreModel,
    drawn,
    outputs,
    tensors_of,
)
from whole_rows import logits_of

from isara_jax.errors import InputError
from isara_jax.models.checkpoints.load import load_model, named_tensors
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.decoder import hidden_states, left_padded_positions, pooled_scores
from isara_jax.models.decoder_cached import extend, prefill
from isara_jax.models.families import family_named, family_of
from isara_jax.models.formats.config_reader import ConfigReader
from isara_jax.models.opt.model import Opt
from isara_jax.runtime.mesh import make_mesh, shard_batch

ROWS = 4
PROMPT = 7
TOKENS = np.random.default_rng(0).integers(3, VOCABULARY, (ROWS, LENGTH))
TOLERANCE = 1e-4


class Variant(NamedTuple):
    """One model as torch has it and as we have read it."""

    name: str
    theirs: object
    ours: object
    folder: Path


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory):
    theirs = drawn(request.param)
    folder = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)
    mesh = make_mesh(data=1, model=1)
    ours = load_model(open_model(folder), dtype="float32", mesh=mesh)
    return Variant(request.param, theirs, ours, folder)


def run(model, tokens, segments=None):
    """Returns the logits of every position, or the scores of every row."""
    if not model.config.score:
        return logits_of(model, tokens, segments)
    segments = np.ones_like(tokens) if segments is None else segments
    return _scores(model, tokens, segments)


@jax.jit
def _scores(model, tokens, segments):
    return pooled_scores(model, tokens, segments=segments)


run_prompt = jax.jit(prefill, static_argnames="capacity")
run_more = jax.jit(extend)


def test_outputs_are_those_of_transformers(variant):
    expected = outputs(variant.theirs, TOKENS)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(run(variant.ours, TOKENS), expected, atol=TOLERANCE)


def test_cached_passes_are_the_whole_pass(variant):
    """The prompt is longer than a window already, and the steps move it on."""
    assert PROMPT > WINDOW and LENGTH - PROMPT >= WINDOW
    apply = variant.ours.scores if variant.ours.config.score else variant.ours.logits
    prompt = TOKENS[:, :PROMPT]
    hidden, cache = run_prompt(
        variant.ours, prompt, segments=np.ones_like(prompt), capacity=LENGTH + 3
    )
    given = [apply(hidden)]
    for at in range(PROMPT, LENGTH):
        hidden, cache = run_more(variant.ours, TOKENS[:, at : at + 1], cache)
        given.append(apply(hidden[:, 0]))
    expected = run(variant.ours, TOKENS)
    if variant.ours.config.score:
        np.testing.assert_allclose(given[-1], expected, atol=TOLERANCE)
        return
    np.testing.assert_allclose(
        np.stack(given, axis=1), expected[:, PROMPT - 1 :], atol=TOLERANCE
    )


def test_left_padding_changes_nothing(variant):
    lengths = np.array([1, 4, LENGTH - 1, LENGTH])
    segments = (np.arange(LENGTH) >= LENGTH - lengths[:, None]).astype(int)
    together = run(variant.ours, np.where(segments, TOKENS, 0), segments)
    for row, length in enumerate(lengths):
        alone = TOKENS[row : row + 1, LENGTH - length :]
        expected = outputs(variant.theirs, alone)[0]
        got = together[row] if variant.ours.config.score else together[row, -length:]
        np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def test_the_order_of_rows_changes_nothing(variant):
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        run(variant.ours, TOKENS[order]), run(variant.ours, TOKENS)[order], atol=1e-5
    )


def test_eight_devices_are_one(variant):
    mesh = make_mesh(data=4, model=2)
    spread = load_model(open_model(variant.folder), dtype="float32", mesh=mesh)
    parts = spread.layers.up.get_value().addressable_shards
    assert len(parts) == 8 and parts[0].data.size == variant.ours.layers.up.size // 8
    got = run(
        spread, shard_batch(TOKENS, mesh), shard_batch(np.ones_like(TOKENS), mesh)
    )
    np.testing.assert_allclose(got, run(variant.ours, TOKENS), atol=TOLERANCE)


def test_no_gradient_comes_from_a_token_that_is_not_seen(variant):
    tokens = jnp.arange(LENGTH)[None]  # each has its own row of the table
    ones = jnp.ones_like(tokens)
    at, config = LENGTH - 3, variant.ours.config
    graph, table, others = nnx.split(variant.ours, nnx.PathContains("embedding"), ...)

    @jax.jit
    @jax.grad
    def gradient(table, others):
        hidden = hidden_states(
            nnx.merge(graph, table, others),
            tokens,
            segments=ones,
            positions=left_padded_positions(ones),
            remat="none",
        )
        return jnp.sum(hidden[0, at] ** 3)

    (of_table,) = jax.tree.leaves(gradient(table, others))
    of_token = np.abs(of_table).sum(axis=1)
    # A layer's window shows a token the one before it, which has seen its own.
    first = at - config.layers * (config.window - 1) if config.window else 0
    assert (of_token[max(first, 0) : at + 1] > 0).all()
    assert (of_token[: max(first, 0)] == 0).all()
    assert (of_token[at + 1 :] == 0).all()


def test_tensors_come_out_as_they_went_in(variant):
    expected = tensors_of(variant.theirs)
    ours = dict(named_tensors(variant.ours))
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape
        assert ours[name].tobytes() == value.tobytes(), name


def written(model, folder):
    """Writes what makes a Hugging Face folder of the model, and returns its config."""
    attributes = family_of(model.config).config_to_hf(model.config, dtype="float32")
    save_file(
        dict(named_tensors(model)),
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    (folder / "config.json").write_text(json.dumps(attributes))
    return ConfigReader(path=folder / "config.json", values=attributes)


def test_the_config_comes_back_as_it_went(variant, tmp_path):
    attributes = written(variant.ours, tmp_path)
    family = family_named(attributes)
    assert family.config_from_hf(attributes) == variant.ours.config


def test_transformers_loads_what_is_written(variant, tmp_path):
    attributes = written(variant.ours, tmp_path)
    (architecture,) = attributes.values["architectures"]
    assert architecture == _architecture(variant)
    # What transformers needs to find a row's last token.
    pad = {"pad_token_id": variant.theirs.model.config.pad_token_id}
    if isinstance(variant.theirs, ScoreModel):  # which transformers does not know
        loaded = ScoreModel(bias=variant.ours.config.score.bias).eval()
        loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    else:
        build = getattr(transformers, architecture)
        loaded = build.from_pretrained(tmp_path, **pad).eval()
    np.testing.assert_allclose(
        outputs(loaded, TOKENS), outputs(variant.theirs, TOKENS), atol=TOLERANCE
    )


def test_a_family_that_is_not_ours_is_refused():
    for kind in ("gpt2", None, ["llama"]):
        attributes = ConfigReader(path=Path("config.json"), values={"model_type": kind})
        with pytest.raises(InputError, match=r"^config\.json: model_type=.*, expected"):
            family_named(attributes)


def test_the_error_for_a_tensor_names_it_and_the_family(variant, tmp_path):
    folder = shutil.copytree(variant.folder, tmp_path / "model")
    change_tensors(folder, lambda tensors: tensors.update({"x.y": np.ones(1)}))
    kind = "an OPT" if isinstance(variant.ours, Opt) else "a LLaMA"
    message = f"the tensor 'x.y' is unknown to {kind} of 2 layers"
    mesh = make_mesh(data=1, model=1)
    with pytest.raises(InputError, match=message):
        load_model(open_model(folder), dtype="float32", mesh=mesh)


def _architecture(variant):
    if isinstance(variant.theirs, ScoreModel):
        return "LlamaModelForScore"
    if variant.name == "Mistral without window":
        return "LlamaForCausalLM"  # which computes the same
    return type(variant.theirs).__name__
