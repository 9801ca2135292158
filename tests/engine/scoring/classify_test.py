"""Scores of whole texts against transformers' classifiers, however they are grouped."""

import numpy as np
import pytest
import torch
import transformers
from completions import one_device
from tiny_llama import tiny_llama

from isara_jax.engine.scoring.classify import classify
from isara_jax.errors import InputError
from isara_jax.models.checkpoints.load import load_model
from isara_jax.models.checkpoints.open import open_model
from isara_jax.runtime.mesh import make_mesh

LABELS = 14  # as many as Beaver-Dam has
CONTEXT = 160
# On both sides of a bucket, of one token, and as long as the context.
LENGTHS = (5, 64, 1, 65, CONTEXT, 30, 31, 3, 63, 2, 100)
# Without the padding token 0, by which transformers looks for a text's end.
PROMPTS = [
    np.random.default_rng((17, length)).integers(1, 20, length).tolist()
    for length in LENGTHS
]


def write_classifier(folder, kind, **attributes):
    """Writes the folder and returns the model that transformers runs."""
    torch.manual_seed(3)
    classifier = transformers.AutoModelForSequenceClassification.from_config(
        transformers.AutoConfig.for_model(
            kind,
            vocab_size=20,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            pad_token_id=0,
            num_labels=LABELS,
            **attributes,
        ),
        attn_implementation="eager",
    ).eval()
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    classifier.save_pretrained(folder)
    return classifier


def by_transformers(classifier):
    """Scores the texts one by one, unpadded."""
    with torch.no_grad():
        return np.stack([classifier(torch.tensor([ids])).logits[0] for ids in PROMPTS])


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    twin = write_classifier(
        folder, "llama", intermediate_size=48, num_key_value_heads=2
    )
    return folder, by_transformers(twin)


def scored(model, prompts, *, slots=4, mesh=None, check=lambda: None):
    return classify(model, prompts, slots=slots, mesh=mesh or one_device(), check=check)


def load(folder, mesh=None):
    return load_model(open_model(folder), dtype="float32", mesh=mesh or one_device())


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("slots", [1, 4, 100])
def test_fourteen_labels_are_those_of_transformers_in_any_slots(llama, slots):
    folder, expected = llama
    found = scored(load(folder), PROMPTS, slots=slots)
    assert found.shape == (len(PROMPTS), LABELS) and found.dtype == np.float32
    assert expected.std() > 0.1 and np.ptp(expected, axis=0).min() > 0.1
    assert_close(found, expected)


def test_an_opt_is_scored_as_well(tmp_path):
    twin = write_classifier(
        tmp_path, "opt", ffn_dim=48, word_embed_proj_dim=32, bos_token_id=1
    )
    assert_close(scored(load(tmp_path), PROMPTS), by_transformers(twin))


@pytest.mark.parametrize(("data", "model"), [(8, 1), (4, 2)])
def test_eight_devices_are_one(llama, data, model):
    folder, expected = llama
    mesh = make_mesh(data=data, model=model)
    assert_close(scored(load(folder, mesh), PROMPTS, mesh=mesh), expected)


def test_order_and_company_make_no_difference(llama):
    folder, expected = llama
    model = load(folder)
    assert_close(scored(model, PROMPTS[::-1])[::-1], expected)
    alone = [scored(model, [tokens])[0] for tokens in PROMPTS[:4]]
    assert_close(np.stack(alone), expected[:4])


def test_nothing_is_compiled_for_more_of_the_same_shapes(llama, compilations):
    model = load(llama[0])
    scored(model, PROMPTS)
    compilations.clear()
    scored(model, [tokens[::-1] for tokens in PROMPTS])
    assert compilations == []


def test_no_texts_have_no_scores(llama):
    assert scored(load(llama[0]), []).shape == (0, LABELS)


def test_check_is_called_before_every_batch(llama):
    calls = []
    scored(load(llama[0]), PROMPTS, slots=4, check=lambda: calls.append(None))
    assert len(calls) == 3


def test_a_model_that_writes_text_is_refused():
    with pytest.raises(InputError, match=r"^the model has no score head, so it cannot"):
        scored(tiny_llama(), PROMPTS)


@pytest.mark.parametrize("length", [0, CONTEXT + 1])
def test_a_text_that_does_not_fit_is_refused(llama, length):
    sentence = rf"^text 1 to score has {length} tokens; .* context of {CONTEXT}$"
    with pytest.raises(InputError, match=sentence):
        scored(load(llama[0]), [[5], [6] * length])
