"""The measure between two models is what it says; only rounding is let by."""

import numpy as np
import pytest
import torch
from llama_files import write_llama, write_tokenizer
from tiny_families import drawn

from isara_jax.errors import InputError
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.checkpoints.verify import (
    TEXT,
    arithmetic,
    difference,
    divergence_limit,
    outputs,
    text_tokens,
)
from isara_jax.runtime.tokenizer import load_tokenizer

RANDOM = np.random.default_rng(0)
ONE, OTHER = RANDOM.standard_normal((2, 7, 5)).astype(np.float32) * 3


def test_the_divergence_of_logits_is_torch_s():
    measured = difference(ONE, OTHER, kind="logits")
    p, q = (torch.log_softmax(torch.tensor(x).double(), -1) for x in (ONE, OTHER))
    expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
    assert measured.divergence == pytest.approx(float(expected), rel=1e-9)
    assert measured.largest == pytest.approx(np.abs(ONE - OTHER).max())
    assert measured.positions == 7


def test_the_divergence_of_scores_is_that_of_their_sigmoids():
    measured = difference(ONE, OTHER, kind="scores")
    p, q = (torch.distributions.Bernoulli(logits=torch.tensor(x)) for x in (ONE, OTHER))
    expected = torch.distributions.kl_divergence(p, q).sum(-1).mean()
    assert measured.divergence == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kind", ["logits", "scores"])
def test_what_is_the_same_is_no_way_apart(kind):
    measured = difference(ONE * 100, ONE * 100, kind=kind)
    assert (measured.largest, measured.divergence) == (0, 0)


@pytest.mark.parametrize("where", [0, 1])
def test_what_is_no_number_is_no_small_divergence(where):
    both = [ONE.copy(), ONE.copy()]
    both[where][3, 2] = np.nan
    assert not difference(*both, kind="logits").divergence <= 1e9


@pytest.mark.parametrize(
    ("found", "dtype", "limit"),
    [
        ({"bfloat16"}, "bfloat16", 1e-6),
        ({"bfloat16", "float16"}, "float32", 1e-6),
        ({"float32"}, "float32", 1e-6),
        ({"float32"}, "bfloat16", 0.1),
        ({"bfloat16", "float32"}, "bfloat16", 0.1),
        ({"float32"}, "float16", 0.01),
        ({"bfloat16"}, "float16", 0.01),
    ],
)
def test_a_dtype_explains_what_it_rounds(found, dtype, limit):
    assert divergence_limit(found, dtype) == limit


@pytest.mark.parametrize(
    ("found", "dtype", "computed"),
    [
        ({"bfloat16"}, "bfloat16", "bfloat16"),
        ({"bfloat16"}, "float32", "float32"),
        ({"bfloat16", "float32"}, "bfloat16", "float32"),
        ({"float16"}, "float16", "float32"),
    ],
)
def test_both_are_computed_in_one_dtype(found, dtype, computed):
    assert arithmetic(found, dtype) == computed


@pytest.mark.parametrize("name", ["LLaMA GQA", "OPT 350m", "LLaMA 14 labels"])
def test_the_outputs_are_those_of_torch(tmp_path, name):
    reference = drawn(name)
    reference.save_pretrained(tmp_path)
    tokens = (5, 9, 11, 63, 3)
    with torch.no_grad():
        # A classifier pools its last token.
        logits = reference(torch.tensor([tokens])).logits.numpy()
    found = outputs(open_model(tmp_path), tokens, dtype="float32")
    expected = np.atleast_2d(logits[0])
    np.testing.assert_allclose(found[-len(expected) :], expected, atol=1e-4)


def test_the_text_fits_the_context(tmp_path):
    write_llama(tmp_path)
    write_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    whole = text_tokens(tokenizer, context=10**6)
    assert len(whole) > len(TEXT.split())
    assert text_tokens(tokenizer, context=9) == whole[:9]


@pytest.mark.parametrize("tokens", [(), (1, 64)])
def test_tokens_that_the_model_has_not(tmp_path, tokens):
    drawn("LLaMA GQA").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"ids \[(64)?\], the model's end at 63"):
        outputs(open_model(tmp_path), tokens, dtype="float32")
