"""Batched greedy generation of an OPT against transformers."""

import numpy as np
import pytest
import torch
from completions import complete, random_prompts
from tiny_opt import OPTS, load_opt, write_opt

from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.engine.scoring.likelihood import LoglikelihoodRequest, loglikelihood
from isara_jax.runtime.mesh import make_mesh

NEW = 12
GREEDY = SamplingParams(max_new_tokens=NEW, temperature=0.0)
PROMPTS = random_prompts(1, 5, 20, 12)


@pytest.fixture(scope="module", params=OPTS)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("opt")
    twin = write_opt(folder, **OPTS[request.param])
    return twin, load_opt(folder)


def left_padded():
    """Returns all prompts as one batch, with OPT's padding on the left."""
    width = max(len(prompt.token_ids) for prompt in PROMPTS)
    tokens = np.ones((len(PROMPTS), width), int)
    for row, prompt in enumerate(PROMPTS):
        tokens[row, width - len(prompt.token_ids) :] = prompt.token_ids
    lengths = np.array([len(prompt.token_ids) for prompt in PROMPTS])
    mask = np.arange(width) >= width - lengths[:, None]
    return torch.tensor(tokens), torch.tensor(mask.astype(int))


def test_greedy_is_that_of_transformers(pair):
    twin, model = pair
    tokens, mask = left_padded()
    theirs = twin.generate(
        tokens,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=None,
        pad_token_id=1,
    )
    expected = theirs[:, tokens.shape[1] :].tolist()
    assert len({tuple(row) for row in expected}) == len(PROMPTS)
    ours = complete(model, PROMPTS, sampling_params=GREEDY)
    for prompt, row in zip(PROMPTS, expected, strict=True):
        assert list(ours[prompt.id].tokens) == row


def test_log_probabilities_are_those_of_torch(pair):
    twin, model = pair
    prompt, answer = PROMPTS[2].token_ids, (5, 6, 7)
    (sums,) = loglikelihood(
        model,
        [LoglikelihoodRequest(prompt=prompt, continuations=(answer,))],
        slots=1,
        mesh=make_mesh(data=1, model=1),
        check=lambda: None,
    )
    with torch.no_grad():
        logits = twin(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    log_p = torch.log_softmax(logits, -1)[range(len(answer)), list(answer)]
    assert sums[0] == pytest.approx(log_p.sum().item(), abs=1e-4)
